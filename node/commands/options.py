"""Options and types that several commands share, and what the shell completes for them."""

import functools
import getpass
import os
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from node.commands.client import DEFAULT_API, ApiClient
from node.config import values

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete_files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def complete_directories(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="dir")]


def complete_words(*words: str) -> Complete:
    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]

    return complete


json_option = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
PROFILES = ("development", "hybrid", "integration", "production", "staging")
"""The names of the files in `config/`."""
config_option = click.option(
    "--config", metavar="FILE", shell_complete=complete_files,
    help="A YAML file with settings under 'bzzz:' (or set BZZZ_CONFIG).",
)  # fmt: skip
profile_option = click.option(
    "--profile",
    metavar="NAME",
    shell_complete=complete_words(*PROFILES),
    help=f"A set of settings that comes with bzzz: {', '.join(PROFILES)}; a setting in --config replaces it "
    "(or set BZZZ_PROFILE).",
)
reason_option = click.option("--reason", metavar="TEXT", default="", help="Why; it is written to the audit log.")


def talks_to_node(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--api`, `--api-token-file` and `--json`; it is called with `client` and `as_json`."""

    @json_option
    @click.option(
        "--api-token-file",
        metavar="FILE",
        envvar="BZZZ_API_TOKEN_FILE",
        shell_complete=complete_files,
        help="A file with the token of the API (or set BZZZ_API_TOKEN_FILE, or the token itself as BZZZ_API_TOKEN).",
    )
    @click.option("--api", metavar="HOST:PORT", default=DEFAULT_API, envvar="BZZZ_API", show_default=True,
                  help="The API of the node to talk to (or set BZZZ_API).")  # fmt: skip
    @functools.wraps(command)
    def with_client(api: str, api_token_file: str | None, **rest: Any) -> None:
        try:
            address = values.host_port(api)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="'--api' (BZZZ_API)") from None
        command(client=ApiClient(address, _token(api_token_file)), **rest)

    return with_client


_TOKEN_CHARS_MAX = 65_536


def _token(path: str | None) -> str | None:
    if path is None:
        return os.environ.get("BZZZ_API_TOKEN", "").strip() or None
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(_TOKEN_CHARS_MAX).strip()
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path} cannot be read ({error})", param_hint="'--api-token-file'") from None


def author_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--author`; it is called with `author`, who runs the command unless the option names another."""

    @click.option("--author", metavar="NAME", help="Who; it is written to the audit log.  [default: you@this-machine]")
    @functools.wraps(command)
    def with_author(author: str | None, **rest: Any) -> None:
        command(author=author or _user(), **rest)

    return with_author


def _user() -> str:
    """The user who runs the command, as the operating system names them."""
    try:
        return f"{getpass.getuser()}@{os.uname().nodename}"[:100]
    except (OSError, KeyError):
        return f"user {os.getuid()}"


class Duration(click.ParamType[int]):
    """A duration with a unit on the command line, as whole milliseconds."""

    name = "DURATION"

    def __init__(self, ms_max: int) -> None:
        self._between = values.milliseconds_between(1, ms_max)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return self._between(values.with_unit(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


TIMEOUT_MS_MAX = 60_000
"""The longest that a node takes for a call; the API refuses more."""
timeout_option = click.option(
    "--timeout", "timeout_ms", type=Duration(TIMEOUT_MS_MAX),
    help="How long the node may take: 500ms, 10s, at most 60s.  [default: the node's own deadline]",
)  # fmt: skip


class GroupWithDefault(click.Group):
    """A group that runs its command `show` when no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_named = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        is_completing_name = ctx.resilient_parsing and not args
        return super().parse_args(ctx, args if is_named or is_completing_name else ["show", *args])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names of the commands; after a `-` the options of `show` too."""
        items = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            items = [*self.commands["show"].shell_complete(ctx, incomplete), *items]
        return list({item.value: item for item in items}.values())
