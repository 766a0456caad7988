"""A job's rows: its columns under their new names, its condition, its reader. The same for every kind; knows specs and
plans, not what is made of a row.
"""

from __future__ import annotations

from hfray.data.columns import Columns
from hfray.data.formats import FORMATS
from hfray.data.plan import Plan
from hfray.data.selection import RowReader
from hfray.data.where import Where, compile_where
from hfray.spec.kinds import RowsJob


def where_of(job: RowsJob) -> Where | None:
    """The job's condition. Raises SpecError for one that cannot be read."""
    return None if job.input.where is None else compile_where(job.input.where)


def columns_of(job: RowsJob, plan: Plan) -> Columns:
    """The job's renaming over the plan's columns and what its format shows to a task alone. Raises SpecError, for a
    column that `where` wants and the input does not have among others."""
    columns = Columns(job.input.columns, plan.schema, FORMATS[plan.indexes[0].file.format].payload)
    where = where_of(job)
    if where is not None:
        columns.require(sorted(where.columns), "input.where")
    return columns


def row_reader(job: RowsJob, plan: Plan) -> RowReader:
    """What reads the job's rows, shard by shard."""
    return RowReader(plan, columns_of(job, plan), where=where_of(job), sample=job.input.sample, seed=job.seed)
