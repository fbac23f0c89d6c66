"""Where rows go: Parquet files with an explicit schema. `Store(path).read("runs")` gives an Arrow table."""

from results.schema import METRICS, SCHEMAS, table
from results.store import Store, StoreError

__all__ = ["METRICS", "SCHEMAS", "Store", "StoreError", "table"]
