"""How a lane's calls reach the replicas: Ray Serve's handles, and what their errors mean. Knows Ray Serve; not HTTP,
not queues."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from hfray.errors import EngineError, RowError
from hfray.serving.errors import RequestError
from hfray.serving.lane import LostReplicaError
from hfray.serving.messages import Ask, Piece, Reply

DEPLOYMENT = "model"


class HandleCalls:
    """Calls of one gateway to one application."""

    def __init__(self, app_name: str, gateway_id: str) -> None:
        from ray import serve

        # By value: straight from process to process (gRPC, with the cluster's token), for half the processor time of a
        # way through Ray's object store.
        handle = serve.get_deployment_handle(DEPLOYMENT, app_name=app_name).options(_by_reference=False)
        self._predict = handle.options(method_name="predict")
        self._stream = handle.options(method_name="stream", stream=True)
        self._gateway_id = gateway_id

    async def predict(self, asks: Sequence[Ask], load: int) -> list[Reply]:
        response = self._predict.remote(list(asks), (self._gateway_id, load))
        try:
            return list(await response)
        except Exception as error:
            raise translated(error) from error

    async def stream(self, ask: Ask, load: int) -> AsyncIterator[list[Piece]]:
        response = self._stream.remote(ask, (self._gateway_id, load))
        ended = False
        try:
            async for pieces in response:
                if isinstance(pieces, RowError):
                    raise pieces
                yield pieces
            ended = True
        except RowError:
            ended = True
            raise
        except Exception as error:
            ended = True
            raise translated(error) from error
        finally:
            if not ended:
                response.cancel()


def translated(error: Exception) -> Exception:
    """What Ray Serve raised, in the words of a lane."""
    from grpc import RpcError
    from ray.exceptions import RayActorError, RayTaskError
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, RowError):
        return cause
    if isinstance(cause, RayActorError | ReplicaUnavailableError | EngineError | RpcError):
        return LostReplicaError(type(cause).__name__)
    if isinstance(cause, BackPressureError):
        return RequestError("the model has too many requests", status=503, type="Overloaded", retry_after_s=1)
    if isinstance(cause, DeploymentUnavailableError):
        return RequestError("the model cannot be started; its operator sees why in Ray Serve's status", status=503,
                            type="Overloaded", retry_after_s=5)  # fmt: skip
    return error
