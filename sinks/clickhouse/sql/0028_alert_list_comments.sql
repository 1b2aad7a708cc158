-- What the columns of the view are, with their units. A view that is replaced later needs them again.
ALTER TABLE alert_list
    COMMENT COLUMN IF EXISTS id 'Id of the alert: one per limit, period and threshold.',
    COMMENT COLUMN IF EXISTS received_at 'When the event that caused it came, UTC.',
    COMMENT COLUMN IF EXISTS appended_at 'When the alert was first on the log, UTC.',
    COMMENT COLUMN IF EXISTS kind 'budget, remaining, spend_spike ...',
    COMMENT COLUMN IF EXISTS severity 'info, warning, critical.',
    COMMENT COLUMN IF EXISTS org_id 'Organisation.',
    COMMENT COLUMN IF EXISTS scope 'What it is about: org, group, user, api_key ...',
    COMMENT COLUMN IF EXISTS name 'Which one.',
    COMMENT COLUMN IF EXISTS period 'Day, hour or month of the limit.',
    COMMENT COLUMN IF EXISTS text 'One sentence.',
    COMMENT COLUMN IF EXISTS state 'open, acknowledged, resolved, empty = notify has not taken it.',
    COMMENT COLUMN IF EXISTS held 'Why nobody was told at once.',
    COMMENT COLUMN IF EXISTS told 'Who was told.',
    COMMENT COLUMN IF EXISTS data 'All facts, as JSON.'
