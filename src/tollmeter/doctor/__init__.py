"""`tollmeter doctor`: looks at a set-up from all sides and says what is wrong and what to do; it changes nothing."""
