"""In front of an application: who asks, from where, under which id, and may they."""
