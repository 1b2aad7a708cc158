-- The newest progress record of a partition.
SELECT state FROM watch_progress FINAL WHERE priced_partition = {partition:UInt16}
