-- The columns of a call that make the measures of a cell, and when it is charged.
        status, price_status, input_tokens, cache_read_tokens, output_tokens, cost_eur_nano, at_risk_eur_nano,
        cost_rub_nano, at_risk_rub_nano, input_tokens + output_tokens AS event_tokens, cost_nano AS event_cost_nano, at_risk_nano AS event_risk_nano,
        billing_scope = 'USER' AS byok, least(event_time, toDateTime64(received_at, 6, 'UTC')) AS charged_at,
