"""What a read-only user may run: one statement that reads tables, with functions, formats and tables on explicit lists.

`SET readonly=1` alone lets through the scalar function `file()`, `INTO OUTFILE`, paths in place of tables, `DESCRIBE`
of a table function, `KILL QUERY` and several statements in one text; hence this judgement in front of it. It takes
tokens, and what it returns is written anew from them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tollmeter.embedded import sql_tokens
from tollmeter.embedded.errors import FrontError, refused
from tollmeter.embedded.reader_lists import (
    BEFORE_PARENTHESIS,
    PATH_LIKE,
    SCHEMA_TABLES,
    SYSTEM,
    SYSTEM_TABLES,
    TABLE_FUNCTIONS,
    TYPES,
    check_format,
    is_function,
    words,
)
from tollmeter.embedded.sql_tokens import Kind, Token

_SHOWS = frozenset({"TABLES", "COLUMNS", "FIELDS", "DATABASES"})
_QUERY_BEGINS = frozenset({"SELECT", "WITH", "FROM", "EXPLAIN"})
_EXPLAINS = frozenset({"AST", "SYNTAX", "PLAN", "PIPELINE", "ESTIMATE", "QUERY", "TREE"})
_TABLES_END = words(
    """SELECT WITH WHERE PREWHERE GROUP ORDER HAVING LIMIT OFFSET UNION EXCEPT INTERSECT WINDOW QUALIFY ARRAY SAMPLE
    FORMAT SETTINGS"""
)
# Behind these (and behind signs that are no end of an operand) a word is a name, whatever keyword it looks like.
_NAME_FOLLOWS = words(
    """AS AND OR NOT XOR ON IN LIKE ILIKE BETWEEN IS USING JOIN FROM WHERE PREWHERE HAVING BY SELECT DISTINCT LIMIT
    OFFSET WHEN THEN ELSE CASE DIV MOD QUALIFY REGEXP SAMPLE INTERVAL GLOBAL ESCAPE EXISTS ARRAY"""
)
_DEEPEST = 500
_PATH_IN_STRING = re.compile(r"[/\\:]")
_CLAUSES = (_NAME_FOLLOWS | _TABLES_END) - {"SETTINGS"}
_OPERAND_ENDS = frozenset({")", "]", "}"})
_TAKES_FROM = frozenset({"extract", "trim", "ltrim", "rtrim", "substring", "substr", "overlay"})
_NOTHING = Token(Kind.SIGN, "", "", gap=False)


def judge(text: str, forbidden_names: frozenset[str]) -> str:
    """Return the statement to run in place of `text`. Raises `FrontError` unless it only reads.

    `forbidden_names`: lower-case names that must not even stand alone: functions of the engine that are on no list
    (`arrayMap(file, …)` passes one by its name), and tables and views that lead elsewhere.
    """
    try:
        found = sql_tokens.tokens(text)
    except sql_tokens.NotTokens as error:
        raise FrontError(62, f"Syntax error: {error}. (SYNTAX_ERROR)") from None
    if not found:
        raise FrontError(62, "Syntax error: the statement is empty. (SYNTAX_ERROR)")
    _Judgement(found, forbidden_names).check()
    return sql_tokens.write(found)


@dataclass
class _Level:
    """What is known inside one pair of parentheses."""

    no_tables: bool = False
    """The arguments of a function that has a FROM of its own: `extract(DAY FROM x)`."""
    tables: bool = False
    """In the list of tables behind FROM."""
    in_tables: bool = False
    """A query, or a list of tables: `FROM (select, '/x')` reads the tables `select` and `/x`."""
    sorts: bool = False
    """Behind GROUP BY or ORDER BY."""


class _Judgement:
    def __init__(self, found: Sequence[Token], forbidden: frozenset[str]) -> None:
        self._tokens = found
        self._forbidden = forbidden
        self._levels = [_Level()]

    def _at(self, place: int) -> Token:
        return self._tokens[place] if 0 <= place < len(self._tokens) else _NOTHING

    def check(self) -> None:
        """Raise `FrontError` at the first token that a reader may not use."""
        self._check_statement()
        for place, token in enumerate(self._tokens):
            at_table = self._is_table(place)
            if at_table and not (token.named or token.text == "("):
                raise refused(f"{token.text[:40]} in the place of a table is not allowed for a read-only user.")
            listed = self._levels[-1].in_tables and self._at(place - 1).text in (",", "(")
            if token.kind is Kind.STRING and listed and _PATH_IN_STRING.search(token.text):
                raise refused(f"{token.text[:40]} may be a table here: not allowed for a read-only user.")
            if token.named:
                self._check_name(place, token)
                self._check_call(place, token, at_table=at_table)
            self._check_clause(place, token)
            self._follow(place, token, at_table=at_table)

    def _check_statement(self) -> None:
        first = next((place for place, token in enumerate(self._tokens) if token.text != "("), 0)
        word, then = self._at(first).word, self._at(first + 1).word
        if word in ("SELECT", "WITH", "FROM"):
            return
        if word == "EXPLAIN" and first == 0:
            self._check_explain(first + 1)
            return
        if word in ("DESCRIBE", "DESC", "EXISTS") and first == 0:
            kind = then in ("TABLE", "VIEW") and self._at(2).text not in (".", "")
            self._check_one_table(2 if kind else 1, subquery=word != "EXISTS")
            return
        if word == "SHOW" and first == 0:
            if then == "CREATE" and self._at(2).word in ("TABLE", "VIEW"):
                self._check_one_table(3, subquery=False)
                return
            if (self._at(2).word if then in ("FULL", "EXTENDED") else then) in _SHOWS:
                return
        raise refused("the statement is not allowed for a read-only user.")

    def _check_one_table(self, place: int, *, subquery: bool) -> None:
        """Allow `name`, `name.name` or a subquery, and an output format behind it."""
        if subquery and self._at(place).text == "(":
            if self._at(place + 1).word in _QUERY_BEGINS:
                return
        elif self._at(place).named:
            place += 1
            while self._at(place).text == "." and self._at(place + 1).named:
                place += 2
            if self._at(place) is _NOTHING or (self._at(place).word == "FORMAT" and self._at(place + 2) is _NOTHING):
                return
        raise refused("only a table or a view by its name is allowed here for a read-only user.")

    def _check_explain(self, place: int) -> None:
        """Allow the kinds and settings of EXPLAIN in front of a query, nothing else."""
        while (token := self._at(place)).word not in ("SELECT", "WITH", "FROM") and token.text != "(":
            setting = token.named and self._at(place + 1).text == "="
            value = self._at(place - 1).text == "=" and (token.kind is Kind.NUMBER or token.word in ("TRUE", "FALSE"))
            if not (setting or value or token.word in _EXPLAINS or token.text in ("=", ",")):
                raise refused("only queries may be explained for a read-only user.")
            place += 1
        while self._at(place).text == "(":
            place += 1
        if self._at(place).word not in ("SELECT", "WITH", "FROM"):
            raise refused("only queries may be explained for a read-only user.")

    def _check_name(self, place: int, token: Token) -> None:
        name, before = token.value.lower(), self._at(place - 1)
        if name in self._forbidden:
            raise refused(f"the name {token.value[:80]!r} is not allowed for a read-only user.")
        if token.kind is Kind.NAME and PATH_LIKE.search(token.value):
            sorted_by = self._levels[-1].sorts and before.text.upper() in ("BY", ",")
            if before.word != "AS" and not sorted_by:
                text = f"the name {token.value[:80]!r} looks like a path: it may only follow AS or BY"
                raise refused(f"{text} for a read-only user.")
        if name in SYSTEM and before.text != ".":
            listed = SYSTEM_TABLES if name == "system" else SCHEMA_TABLES
            alone = self._at(0).word not in ("SELECT", "WITH", "FROM", "EXPLAIN", "")
            if self._at(place + 1).text == ".":
                alone = self._at(place + 2).value.lower() not in listed
            if alone:
                raise refused(f"this table of {name!r} is not allowed for a read-only user.")

    def _check_call(self, place: int, token: Token, *, at_table: bool) -> None:
        if token.word == "APPLY":
            return self._check_applied(place + 1)
        if self._at(place + 1).text != "(" or (token.word in BEFORE_PARENTHESIS and not at_table):
            return None
        name = token.value.lower()
        known = name in TABLE_FUNCTIONS if at_table else is_function(name) or name in TYPES
        if not known:
            what = "table function" if at_table else "function"
            raise refused(f"the {what} {token.value[:80]!r} is not allowed for a read-only user.")
        return None

    def _check_applied(self, place: int) -> None:
        """`SELECT * APPLY(f)` and `APPLY f` call what they name."""
        place += self._at(place).text == "("
        if self._at(place).named and self._at(place + 1).text != "->" and not is_function(self._at(place).value):
            raise refused(f"the function {self._at(place).value[:80]!r} is not allowed for a read-only user.")

    def _check_clause(self, place: int, token: Token) -> None:
        following, second = self._at(place + 1), self._at(place + 2)
        if token.word == "INTO":
            raise refused("INTO is not allowed for a read-only user.")
        if token.word == "PARALLEL" and following.word == "WITH":
            raise refused("PARALLEL WITH is not allowed for a read-only user.")
        behind_operand = self._is_clause(place) or self._at(place - 1).text == "*"
        column = following.word in _CLAUSES and second.text not in ("=", "==") and not behind_operand
        if token.word == "SETTINGS" and following.named and not column:  # `SETTINGS x` alone is `SETTINGS x = 1`
            raise refused("SETTINGS in the statement are not allowed for a read-only user.")
        if token.word == "FORMAT" and following.named:
            check_format(following.value)
        if token.word == "EXPLAIN" and place and self._at(place - 1).text == "(":
            self._check_explain(place + 1)
        if token.text == ":" and following.value.lower() == "identifier":
            raise refused("parameters of the type Identifier are not allowed for a read-only user.")

    def _is_table(self, place: int) -> bool:
        """Tell whether a table stands here: behind FROM and JOIN, and behind each comma of their list."""
        before, level = self._at(place - 1), self._levels[-1]
        if (before.word in ("FROM", "JOIN") and self._at(place - 2).text != "{") or before.text == ",":
            return level.tables
        return level.tables and before.text == "(" and self._at(place).word not in _QUERY_BEGINS

    def _is_clause(self, place: int) -> bool:
        """Tell whether a word that looks like a keyword is one: it stands where an operand has ended."""
        before, word = self._at(place - 1), self._at(place).word
        if before is _NOTHING or (before.text == "(" and word in _QUERY_BEGINS):
            return True
        if word == "SELECT" and self._levels[-1].tables:
            return False  # `FROM a select, b`: an alias
        sign = before.kind is Kind.SIGN and before.text not in _OPERAND_ENDS
        return not sign and before.word not in _NAME_FOLLOWS

    def _follow(self, place: int, token: Token, *, at_table: bool) -> None:
        """Keep account of parentheses and clauses. In doubt a place is one of a table, which allows less."""
        level, before = self._levels[-1], self._at(place - 1)
        if token.text in ("(", "[", "{"):
            takes_from = before.named and before.value.lower() in _TAKES_FROM and token.text == "("
            query = self._at(place + 1).word in _QUERY_BEGINS
            self._levels.append(_Level(no_tables=takes_from and not query, tables=at_table, in_tables=at_table))
            if len(self._levels) > _DEEPEST:
                raise FrontError(62, "Syntax error: too many parentheses in each other. (SYNTAX_ERROR)")
        elif token.text in (")", "]", "}"):
            if len(self._levels) == 1:
                raise FrontError(62, f"Syntax error: {token.text} without its beginning. (SYNTAX_ERROR)")
            self._levels.pop()
        elif token.word in ("FROM", "JOIN") and before.text != "{":  # `{from:Int64}` is a parameter
            array_join = token.word == "JOIN" and before.word == "ARRAY" and not level.tables
            level.tables, level.sorts = not (array_join or level.no_tables), False
        elif token.word in _TABLES_END and self._is_clause(place):
            level.tables, level.sorts = False, token.word in ("GROUP", "ORDER")
        if token.word in ("SELECT", "UNION", "EXCEPT", "INTERSECT"):
            level.no_tables = False
