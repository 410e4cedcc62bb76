"""`bzzz completion`: prints the script that makes a shell complete `bzzz`, made by click."""

import click

VARIABLE = "_BZZZ_COMPLETE"
"""The script sets it and calls `bzzz`; click then prints completions and runs no command."""


@click.command("completion", short_help="Print the script that makes your shell complete 'bzzz'.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print a script that makes SHELL complete commands, options, files and flags of 'bzzz'.

    Save it once, and load it whenever the shell starts. Print it again after an update of bzzz.

    \b
    bash:  bzzz completion bash > ~/.bzzz-completion.bash
           echo 'source ~/.bzzz-completion.bash' >> ~/.bashrc
    zsh:   bzzz completion zsh > ~/.bzzz-completion.zsh
           echo 'source ~/.bzzz-completion.zsh' >> ~/.zshrc
           (~/.zshrc must call 'autoload -U compinit && compinit' before that line)
    fish:  bzzz completion fish > ~/.config/fish/completions/bzzz.fish
    """
    from click.shell_completion import get_completion_class

    make_completion = get_completion_class(shell)
    assert make_completion is not None, shell
    click.echo(make_completion(ctx.find_root().command, {}, "bzzz", VARIABLE).source())
