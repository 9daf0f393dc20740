"""Settings of a process: defaults, then a TOML file, then the environment, then flags; the later one wins.

A settings dataclass is written once: each field becomes a flag, a TOML key and an environment name, and the docstring
below the field becomes the flag's help.

| field            | flag                 | TOML key              | environment (prefix TROTH_COORDINATOR)   |
|------------------|----------------------|-----------------------|------------------------------------------|
| `vote_timeout_s` | `--vote-timeout 5s`  | `vote_timeout_s = 5`  | `TROTH_COORDINATOR_VOTE_TIMEOUT=5s`      |
| `in_flight_max`  | `--in-flight-max 99` | `in_flight_max = 99`  | `TROTH_COORDINATOR_IN_FLIGHT_MAX=99`     |

Click itself orders the sources: the file becomes the command's `default_map`, the prefix its `auto_envvar_prefix`. What
is here is what click does not do: a file with an unknown key or a wrong type is refused by key and line.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from troth.process.addresses import AddressType, NamedAddressType
from troth.process.durations import Duration, show

S = TypeVar("S")
F = TypeVar("F", bound=Callable[..., Any])

_FLAG_ONLY = frozenset({"config", "help"})
"""Options that a configuration file cannot set."""


class ConfigError(click.ClickException):
    """A configuration that cannot be used; the message names the file, the line and the key. Exit code 2."""

    exit_code = 2


class Option(click.Option):
    """A click option whose help tells its environment name and its default, and whose errors tell where a value was."""

    def get_error_hint(self, ctx: click.Context | None, *args: Any) -> str:
        """The environment name when the value came from there; click itself would name the flag."""
        from_environment = ctx and self.name and ctx.get_parameter_source(self.name) is ParameterSource.ENVIRONMENT
        if ctx and from_environment and ctx.auto_envvar_prefix:
            return f"{ctx.auto_envvar_prefix}_{self.name}".upper()
        return super().get_error_hint(ctx, *args)


def option(*names: str, **attrs: Any) -> Callable[[F], F]:
    """`click.option`, with `Option`."""
    return click.option(*names, cls=Option, **{"show_envvar": True, "show_default": True, **attrs})


def settings_options(settings: type[Any]) -> Callable[[F], F]:
    """A decorator that gives a click command one option for each field of the dataclass `settings`."""
    helps = field_docs(settings)

    def decorate(command: F) -> F:
        for field in reversed(dataclasses.fields(settings)):
            command = _settings_option(field, helps.get(field.name, ""))(command)
        return command

    return decorate


def _settings_option(field: dataclasses.Field[Any], help: str) -> Callable[[F], F]:
    name = _option_name(field.name)
    flag = "--" + name.replace("_", "-")
    match field.default:
        case int() | float() as default if field.name.endswith("_s"):
            return option(flag, name, type=Duration(), default=show(default), help=help)
        case bool():
            return option(flag + "/--no-" + flag[2:], name, default=field.default, help=help)
        case int() as default:
            return option(flag, name, type=click.IntRange(min=1), default=default, help=help)
        case _:
            raise TypeError(f"{field.name}: a setting is a duration in seconds named ..._s, a whole number, or a bool")


def _option_name(field_name: str) -> str:
    """A flag says its unit itself (`5s`), so its name drops the `_s`."""
    return field_name.removesuffix("_s")


def field_docs(settings: type[Any]) -> dict[str, str]:
    """The docstring literal below each field of a dataclass, by field name; as Python keeps none, read from source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(settings))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = inspect.cleandoc(text)
    return docs


def fill(settings: type[S], params: Mapping[str, Any]) -> S:
    """The settings out of a click command's parameters. Raises ConfigError when the dataclass itself refuses them."""
    fields = dataclasses.fields(settings)  # type: ignore[arg-type]
    try:
        return settings(**{field.name: params[_option_name(field.name)] for field in fields})
    except ValueError as error:
        raise ConfigError(str(error)) from error


def file_option(command: F) -> F:
    """Gives a click command `--config FILE`, a TOML file with a key for every other option."""

    def load(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
        if path is not None:
            ctx.default_map = {**(ctx.default_map or {}), **read_file(path, _by_key(ctx.command.params))}
        return path

    return option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,  # before every other option, so that it can be their default
        callback=load,
        expose_value=False,
        help="A TOML file with a key for every other option; the environment and flags win over it.",
    )(command)


def _by_key(params: Iterable[click.Parameter]) -> dict[str, click.Option]:
    """Options by their TOML key."""
    options = (param for param in params if isinstance(param, click.Option) and param.name not in _FLAG_ONLY)
    return {_key(option): option for option in options}


def _key(option: click.Option) -> str:
    assert option.name is not None
    return option.name + "_s" if isinstance(option.type, Duration) else option.name


def read_file(path: Path, options: Mapping[str, click.Option]) -> dict[str, Any]:
    """The values of a TOML file by option name, each checked against its option; `options` are by TOML key.

    A relative path in the file is relative to the file's folder. Raises ConfigError for a syntax error, an unknown key,
    a wrong type and a value out of range."""
    text = path.read_text("utf-8")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    values = {}
    for key, found in table.items():
        try:
            if key not in options:
                raise ValueError(f"unknown key {key!r}{_nearest(key, options)}")
            values[options[key].name or key] = _value(options[key], found, path.parent)
        except ValueError as error:
            raise ConfigError(f"{path}:{_line(text, key)}: {error}") from error
    return values


def misspelt(ctx: click.Context, environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names in the environment that nothing reads though they look like one that is read, each with that one.

    They are told and not refused: orchestrators put names of their own under any prefix (for a service called
    troth-coordinator, Kubernetes sets TROTH_COORDINATOR_PORT)."""
    prefix = ctx.auto_envvar_prefix or ""
    known = {f"{prefix}_{param.name}".upper() for param in ctx.command.params}
    unread = sorted(name for name in environment if name.startswith(prefix + "_") and name not in known)
    near = ((name, difflib.get_close_matches(name, known, n=1, cutoff=0.9)) for name in unread)
    return [(name, found[0]) for name, found in near if found]


def _nearest(key: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(names)}"


def _line(text: str, key: str) -> str:
    """The line that sets a top-level key; `?` when it is written in a way that is not looked for."""
    pattern = re.compile(rf"""\s*(\[\s*)?["']?{re.escape(key)}["']?\s*[=.\]]""")
    return next((str(n) for n, line in enumerate(text.splitlines(), 1) if pattern.match(line)), "?")


def _value(option: click.Option, found: object, folder: Path) -> object:
    """What click is to convert for this option, out of what the file holds. Raises ValueError naming the key."""
    key = _key(option)
    kinds, expected = _kinds(option)
    if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
        raise ValueError(f"{key}: expected {expected}, found {_described(found)}")
    if isinstance(option.type, click.Path):
        found = str(folder / str(found))
    items = _pairs(key, found) if isinstance(found, dict) else [found]
    try:
        checked = [option.type.convert(item, None, None) for item in items]
    except click.BadParameter as error:
        raise ValueError(f"{key}: {error.message}") from error
    return checked if option.multiple else checked[0]


def _kinds(option: click.Option) -> tuple[tuple[type, ...], str]:
    """The Python types that TOML gives for a right value of this option, and words for them."""
    match option.type:
        case Duration():
            return (int, float), "seconds as a number"
        case NamedAddressType():
            return (dict,), 'a table, as in p1 = "127.0.0.1:7401"'
        case click.types.IntParamType():
            return (int,), "a whole number"
        case click.types.BoolParamType():
            return (bool,), "true or false"
        case AddressType():
            return (str,), 'an address, as in "127.0.0.1:7400"'
        case _:
            return (str,), "a string"


def _pairs(key: str, table: dict[str, Any]) -> list[tuple[str, str]]:
    for name, value in table.items():
        if not isinstance(value, str):
            raise ValueError(f"{key}.{name}: expected a string, found {_described(value)}")
    return list(table.items())


def _described(value: object) -> str:
    match value:
        case bool():
            return f"the boolean {str(value).lower()}"
        case str():
            return f"the string {value!r}"
        case int() | float():
            return f"the number {value}"
        case dict():
            return "a table"
        case list():
            return "a list"
        case _:
            return f"a {type(value).__name__} ({value})"
