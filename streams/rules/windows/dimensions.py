"""What a live view may be by, and how far it looks back."""

from collections.abc import Mapping

STEP_S = 5
"""Length of a step of the sums."""
KEPT_S = 3_600
DIMENSIONS: Mapping[str, str] = {
    "key": "api_key_id",
    "user": "user_id",
    "model": "model",
    "ip": "client_ip",
    "provider": "provider",
    "org": "org_id",
    "group": "group_id",
    "agent": "agent",
    "service": "service",
    "feature": "operation_name",
    "session": "session_id",
}
"""What a view may be by, and the column of a priced row that names it."""
