-- What an hour or a day is called, and the step of the courses: 'hour', 'day', or '' for none.
        formatDateTime(e.hour_, '%Y-%m-%dT%H:%i%z', {zone:String}) AS hour_text_,
        multiIf({steps:String} = 'hour', hour_text_, {steps:String} = 'day', toString(e.day_), '') AS step_
