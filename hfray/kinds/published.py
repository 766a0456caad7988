"""Outputs with a model at their top: claimed before it is made, and emptied when a job starts over. Knows which files
are a model's; not how it is made."""

from __future__ import annotations

from hfray.data.ledger import SUCCESS, Ledger
from hfray.data.publish import published, unpublish
from hfray.errors import SpecError
from hfray.models.result_files import LAST, is_model_file, is_weights


def check_top(opening: Ledger) -> None:
    """Raises SpecError for a folder with a model in it that no job has published there: it would be written over."""
    ours = published(opening)
    names = [name for name in opening.storage.names("") if is_model_file(name) and name not in ours]
    if opening.identity() is not None:  # an author may have added a model card since
        names = [name for name in names if is_weights(name) or name in LAST]
    if names:
        raise SpecError(
            f"output.path: {opening.url} holds files that this job has not written ({', '.join(names[:3])}); choose "
            "another folder, or empty this one"
        )


def clear_top(opening: Ledger) -> None:
    """Takes away what this output has published, for a job that starts over."""
    opening.delete(SUCCESS)
    unpublish(opening, LAST)
