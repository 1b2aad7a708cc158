"""Traffic of a made-up company whose token counts and arrivals follow real traces; needs numpy."""
