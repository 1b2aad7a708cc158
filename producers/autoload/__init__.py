"""A folder for PYTHONPATH: the Python that finds it meters its calls from the start. `tollmeter run` puts it there."""
