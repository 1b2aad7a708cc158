"""What lives in the calling service: the producer client, its spool, and the extractors. Loads no polars, no Faust."""
