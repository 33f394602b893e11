"""Decides what ``uploadctl completion`` prints: commands and options for a shell to complete, and files elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from upload.cli.grammar import Parser, grammar

_BASH = """\
_uploadctl() {
    local current="${COMP_WORDS[COMP_CWORD]}" words="%(commands)s" word
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$word" in
%(cases)s
        esac
    done
    case "${COMP_WORDS[COMP_CWORD-1]}" in
%(values)s
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _uploadctl uploadctl
"""


def completion(shell: str) -> str:
    """Return the script for a shell."""
    parser = grammar()
    commands = parser.commands
    if shell == "fish":
        return "".join(_fish(commands, parser))
    cases = [f'        {name}) words="{" ".join(command.words)}" ;;' for name, (_, command) in commands.items()]
    pairs = {
        option: " ".join(map(str, action.choices))
        for _, command in commands.values()
        for action in command._actions  # noqa: SLF001 - argparse tells in no other way
        for option in action.option_strings
        if action.choices
    }
    values = [f'    {option}) words="{words}" ;;' for option, words in pairs.items()]
    facts = {
        "commands": " ".join([*commands, "help", *parser.options]),
        "cases": "\n".join("    " + case for case in cases),
        "values": "\n".join(values),
    }
    head = "#compdef uploadctl\nautoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return head + _BASH % facts


def _fish(commands: dict[str, tuple[str, Parser]], parser: Parser) -> Iterator[str]:
    for name, (text, _) in commands.items():
        yield f"complete -c uploadctl -f -n __fish_use_subcommand -a {name} -d {_quoted(text)}\n"
    for where, command in ((None, parser), *((name, command) for name, (_, command) in commands.items())):
        seen = f"__fish_seen_subcommand_from {where}" if where else "__fish_use_subcommand"
        for action in command._actions:  # noqa: SLF001 - as above
            flags = " ".join(
                ("-l " if flag.startswith("--") else "-s ") + flag.lstrip("-") for flag in action.option_strings
            )
            if flags:
                words = f" -x -a {_quoted(' '.join(map(str, action.choices)))}" if action.choices else ""
                taking = "" if words or action.nargs == 0 else " -r"
                text = _quoted(action.help or "")
                yield f"complete -c uploadctl -n {_quoted(seen)} {flags}{taking}{words} -d {text}\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
