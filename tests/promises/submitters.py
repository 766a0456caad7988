"""`python -m tests.promises.submitters JOB ADDRESS NUMBER`: so many who submit one job at the same moment. Prints what
each of them got."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from hfray.kinds.dashboard import jobs_client
from hfray.spec.load import load_job
from hfray.submit.resolve import resolved
from hfray.submit.submission import ClusterJobs, Request


def main(job: str, address: str, number: int) -> None:
    request, together = Request(resolved(load_job(job))), Barrier(number)

    def one(_: int) -> tuple[str, bool]:
        cluster = ClusterJobs(jobs_client(address), address)
        together.wait()
        done = cluster.submit(request)
        return done.attempt.id, done.new

    with ThreadPoolExecutor(number) as pool:
        print(json.dumps(list(pool.map(one, range(number)))))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
