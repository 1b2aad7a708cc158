"""Which settings a read-only user may send, and which values: none holds a path, a schema or an address."""

import os
import re
from collections.abc import Mapping

from tollmeter.embedded.errors import FrontError, refused

LIMITS: Mapping[str, str] = {
    "max_execution_time": "30",
    "max_memory_usage": str(1 << 30),
    "max_result_bytes": str(64 << 20),
    "max_threads": str(max(1, (os.cpu_count() or 1) // 2)),
    "max_ast_depth": "500",
    "max_parser_depth": "500",
}
"""What holds for every reader; another value that it sends is passed over, as clients send their defaults."""

_SWITCH = re.compile(r"0|1|true|false")
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_NAMES = {
    _SWITCH: """final use_uncompressed_cache prefer_column_name_to_alias cancel_http_readonly_queries_on_client_close
        output_format_json_quote_64bit_integers output_format_json_quote_64bit_floats
        output_format_json_quote_denormals output_format_json_quote_decimals output_format_json_escape_forward_slashes
        output_format_json_named_tuples_as_objects output_format_json_array_of_rows output_format_json_validate_utf8
        output_format_json_skip_null_value_in_named_tuples output_format_arrow_string_as_string
        output_format_arrow_low_cardinality_as_dictionary output_format_arrow_fixed_string_as_fixed_byte_array
        output_format_parquet_string_as_string output_format_parquet_fixed_string_as_fixed_byte_array
        output_format_orc_string_as_string output_format_csv_crlf_end_of_line output_format_tsv_crlf_end_of_line
        output_format_csv_serialize_tuple_into_separate_columns output_format_decimal_trailing_zeros
        output_format_write_statistics output_format_native_encode_types_in_binary_format
        output_format_native_use_flattened_dynamic_and_json_serialization output_format_binary_write_json_as_string
        output_format_pretty_row_numbers output_format_pretty_highlight_digit_groups""",
    _NUMBER: "max_rows_to_read max_result_rows output_format_pretty_max_rows output_format_pretty_max_column_pad_width",
    re.compile(r"[1-9]\d{0,5}", re.ASCII): "max_block_size",
    re.compile(r"throw|break"): "result_overflow_mode",
    re.compile(r"basic|best_effort|best_effort_us"): "date_time_input_format",
    re.compile(r"simple|iso|unix_timestamp"): "date_time_output_format",
    re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,30}(?:/[A-Za-z][A-Za-z0-9_+-]{0,30}){0,2}", re.ASCII): "session_timezone",
    re.compile(r"lz4_frame|zstd|none"): "output_format_arrow_compression_method",
    re.compile(r"snappy|lz4|brotli|zstd|gzip|none"): "output_format_parquet_compression_method",
}
_ALLOWED = {name: values for values, names in _NAMES.items() for name in names.split()}


def check_setting(name: str, value: str) -> None:
    """Raise `FrontError` unless a read-only user may send this setting with this value."""
    if name not in _ALLOWED:
        raise refused(f"Cannot modify {name[:80]!r} setting in readonly mode.")
    if not _ALLOWED[name].fullmatch(value):
        raise FrontError(72, f"Bad value {value[:40]!r} of the setting {name!r}. (CANNOT_PARSE_NUMBER)", 400)


def reader_settings(sent: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return the settings to set: what was sent, over it `LIMITS` and the user's own. Raises `FrontError`."""
    fixed = {**LIMITS, **own}
    for name, value in sent.items():
        if name not in fixed:
            check_setting(name, value)
    return {**sent, **fixed}
