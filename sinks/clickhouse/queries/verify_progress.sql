-- How far WATCH's checkpoint has got, per partition.
SELECT priced_partition, state FROM watch_progress FINAL ORDER BY priced_partition
