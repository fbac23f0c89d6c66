"""Where rows go: Parquet files with an explicit schema. `Store(path).read("runs")` gives an Arrow table."""

from results.errors import StoreError
from results.schema import METRICS, SCHEMAS, table
from results.store import Made, Store

__all__ = ["METRICS", "SCHEMAS", "Made", "Store", "StoreError", "table"]
