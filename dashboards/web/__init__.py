"""Pages: templates and what stands beside them; the server fills them in."""
