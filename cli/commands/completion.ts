/**
 * `completion`: shell scripts that complete commands and flags.
 * @module
 */
import type { Command, Option } from "commander";
import { InputError } from "../../core/errors.ts";
import type { Io } from "../io.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;

export function addCompletion(program: Command, io: Io): void {
  program
    .command("completion <shell>")
    .description(`completion script for ${SHELLS.join(", ")}`)
    .addHelpText(
      "after",
      "\nExamples:\n  $ source <(bitwright completion bash)\n  $ bitwright completion fish > ~/.config/fish/completions/bitwright.fish",
    )
    .action((shell: string) => {
      const words = wordsOf(program);
      switch (shell) {
        case "bash":
          io.stdout(bash(words));
          break;
        case "zsh":
          io.stdout(`autoload -U +X bashcompinit && bashcompinit\n${bash(words)}`);
          break;
        case "fish":
          io.stdout(fish(words));
          break;
        default:
          throw new InputError("input.option", `completion knows ${SHELLS.join(", ")}, not "${shell}"`, { word: shell, known: SHELLS });
      }
    });
}

interface CommandWords {
  readonly name: string;
  readonly summary: string;
  readonly flags: readonly string[];
}

function wordsOf(program: Command): readonly CommandWords[] {
  return program.commands.map((command) => ({
    name: command.name(),
    summary: command.description(),
    flags: command.options.filter((option: Option) => !option.hidden).map((option: Option) => option.long ?? option.short ?? ""),
  }));
}

function bash(words: readonly CommandWords[]): string {
  const cases = words.map(({ name, flags }) => `    ${name}) flags="${flags.join(" ")}" ;;`).join("\n");
  const main = words.find(({ name }) => name === "quantize")?.flags.join(" ") ?? "";
  return `_bitwright() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" flags="${main}"
  case "\${COMP_WORDS[1]}" in
${cases}
  esac
  if [[ "$cur" == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$cur"))
  elif [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "${words.map(({ name }) => name).join(" ")}" -- "$cur") $(compgen -f -- "$cur"))
  else
    COMPREPLY=($(compgen -f -- "$cur"))
  fi
}
complete -o filenames -F _bitwright bitwright quantize
`;
}

function fish(words: readonly CommandWords[]): string {
  const quote = (text: string): string => `'${text.replaceAll("'", "\\'")}'`;
  const lines = words.flatMap(({ name, summary, flags }) => [
    `complete -c bitwright -n __fish_use_subcommand -a ${name} -d ${quote(summary)}`,
    ...flags.map((flag) => `complete -c bitwright -n '__fish_seen_subcommand_from ${name}' -l ${flag.replace(/^--/, "")}`),
  ]);
  return `${lines.join("\n")}\n`;
}
