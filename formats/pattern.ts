/**
 * The regular expressions of `re:` targets, matched in bounded time.
 *
 * They come from a file, so a backtracking engine would let the file decide how long matching takes. This one
 * compiles the part of Python's syntax that targets use to a state machine and steps all states at once
 * (Thompson 1968): time is at most pattern × text.
 *
 * Known: literals, `.`, `\d \w \s` and their opposites, escapes, `[...]`, groups (also `(?:...)` and named), `|`,
 * `* + ? {m} {m,} {m,n}` (lazy ones match the same names), `^ $ \A \Z`. Lookaround, `\b` and back-references are refused.
 * @module
 */
import { FormatError, UnsupportedError } from "../core/errors.ts";

/** States of one pattern; `{m,n}` repeats its operand, so the length alone does not bound them. */
const MAX_STATES = 4000;
const MAX_DEPTH = 32;
/** Steps of building one machine: repeats of empty groups cost steps but no states. */
const MAX_BUILD_STEPS = 100_000;

/** State visits that all patterns of one config may take together: some ten seconds; real configs take thousandths of it. */
export interface MatchBudget {
  left: number;
}
export const MATCH_STEPS = 1e9;

type Test = (unit: number) => boolean;

/** States: a test that consumes a character, a fork, an assertion, or the end. */
type State =
  | { readonly kind: "test"; readonly test: Test; next: number }
  | { readonly kind: "fork"; a: number; b: number }
  | { readonly kind: "start" | "end"; next: number }
  | { readonly kind: "match" };

type Node =
  | { readonly kind: "test"; readonly test: Test }
  | { readonly kind: "assert"; readonly at: "start" | "end" }
  | { readonly kind: "sequence"; readonly items: readonly Node[] }
  | { readonly kind: "choice"; readonly items: readonly Node[] }
  | { readonly kind: "repeat"; readonly item: Node; readonly min: number; readonly max: number };

/** A compiled pattern. */
export interface Pattern {
  /** Whether some prefix of `text` matches, as Python's `re.match`. */
  matches(text: string): boolean;
}

/**
 * @param source - what follows `re:`.
 * @param budget - shared by all patterns of a file; `matches` throws `format.limit` when it is used up.
 * @throws {FormatError} `format.config` for a pattern that is not well-formed.
 * @throws {UnsupportedError} `unsupported.format` for syntax outside the subset, or too many states.
 */
export function compilePattern(source: string, budget: MatchBudget = { left: MATCH_STEPS }): Pattern {
  const states: State[] = [];
  let steps = 0;
  const add = (state: State): number => {
    if (states.length >= MAX_STATES) {
      throw new UnsupportedError("unsupported.format", `target "re:${source.slice(0, 100)}" needs more than ${MAX_STATES} states`, {
        source,
      });
    }
    return states.push(state) - 1;
  };
  /** Build backwards: the state that runs `node` and goes on to `next`. */
  const build = (node: Node, next: number): number => {
    if (++steps > MAX_BUILD_STEPS) {
      throw new UnsupportedError("unsupported.format", `target "re:${source.slice(0, 100)}" repeats too much`, { source });
    }
    switch (node.kind) {
      case "test":
        return add({ kind: "test", test: node.test, next });
      case "assert":
        return add({ kind: node.at, next });
      case "sequence":
        return node.items.reduceRight((after, item) => build(item, after), next);
      case "choice":
        return node.items.map((item) => build(item, next)).reduceRight((b, a) => add({ kind: "fork", a, b }));
      case "repeat": {
        let entry = next;
        if (node.max === Infinity) {
          const loop: State = { kind: "fork", a: 0, b: next };
          entry = add(loop);
          loop.a = build(node.item, entry);
        } else {
          for (let i = node.min; i < node.max; i++) entry = add({ kind: "fork", a: build(node.item, entry), b: next });
        }
        for (let i = 0; i < node.min; i++) entry = build(node.item, entry);
        return entry;
      }
      default:
        return node satisfies never;
    }
  };
  const match = add({ kind: "match" });
  const start = build(new Parser(source).parse(), match);
  return { matches: (text) => run(states, start, text, budget) };
}

function run(states: readonly State[], start: number, text: string, budget: MatchBudget): boolean {
  let current = new Set<number>();
  /** Add a state and everything reachable without a character. @returns whether the end is among them. */
  const reach = (into: Set<number>, from: number, at: number): boolean => {
    const pending = [from];
    while (pending.length > 0) {
      const index = pending.pop()!;
      if (into.has(index)) continue;
      into.add(index);
      const state = states[index]!;
      if (state.kind === "match") return true;
      if (state.kind === "fork") pending.push(state.b, state.a);
      else if (state.kind === "start" && at === 0) pending.push(state.next);
      else if (state.kind === "end" && (at === text.length || (at === text.length - 1 && text[at] === "\n"))) pending.push(state.next);
    }
    return false;
  };
  if (reach(current, start, 0)) return true;
  for (let at = 0; at < text.length && current.size > 0; at++) {
    const following = new Set<number>();
    const unit = text.charCodeAt(at);
    budget.left -= current.size;
    if (budget.left < 0) {
      throw new FormatError("format.limit", `matching the "re:" targets takes more than ${MATCH_STEPS} steps; list the modules by name`);
    }
    for (const index of current) {
      const state = states[index]!;
      if (state.kind === "test" && state.test(unit) && reach(following, state.next, at + 1)) return true;
    }
    current = following;
  }
  return false;
}

const isDigit: Test = (c) => c >= 0x30 && c <= 0x39;
const isWord: Test = (c) => isDigit(c) || (c >= 0x41 && c <= 0x5a) || (c >= 0x61 && c <= 0x7a) || c === 0x5f;
const isSpace: Test = (c) => c === 0x20 || (c >= 0x09 && c <= 0x0d);
const not =
  (test: Test): Test =>
  (c) =>
    !test(c);
const CLASSES: ReadonlyMap<string, Test> = new Map([
  ["d", isDigit],
  ["D", not(isDigit)],
  ["w", isWord],
  ["W", not(isWord)],
  ["s", isSpace],
  ["S", not(isSpace)],
]);
const CONTROLS: ReadonlyMap<string, string> = new Map([
  ["n", "\n"],
  ["t", "\t"],
  ["r", "\r"],
  ["f", "\f"],
  ["v", "\v"],
]);

class Parser {
  private at = 0;
  private depth = 0;
  private readonly source: string;

  constructor(source: string) {
    this.source = source;
  }

  parse(): Node {
    const node = this.choice();
    if (this.at < this.source.length) this.fail(`unexpected "${this.source[this.at]}"`);
    return node;
  }

  private choice(): Node {
    if (++this.depth > MAX_DEPTH) this.refuse(`groups nested deeper than ${MAX_DEPTH}`);
    const items = [this.sequence()];
    while (this.take("|")) items.push(this.sequence());
    this.depth--;
    return items.length === 1 ? items[0]! : { kind: "choice", items };
  }

  private sequence(): Node {
    const items: Node[] = [];
    while (this.at < this.source.length && !"|)".includes(this.source[this.at]!)) items.push(this.repeated());
    return { kind: "sequence", items };
  }

  private repeated(): Node {
    const item = this.atom();
    const range = this.quantifier();
    if (range === undefined) return item;
    this.take("?");
    if (this.peek("+")) this.refuse("possessive quantifiers");
    if (this.peek("*") || this.peek("{")) this.fail("two quantifiers in a row");
    return { kind: "repeat", item, min: range[0], max: range[1] };
  }

  private quantifier(): readonly [number, number] | undefined {
    if (this.take("*")) return [0, Infinity];
    if (this.take("+")) return [1, Infinity];
    if (this.take("?")) return [0, 1];
    const found = /^\{(\d{0,4})(,?)(\d{0,4})\}/.exec(this.source.slice(this.at, this.at + 12));
    if (found === null || (found[1] === "" && found[3] === "")) return undefined;
    this.at += found[0].length;
    const min = Number(found[1]);
    const max = found[2] === "" ? min : found[3] === "" ? Infinity : Number(found[3]);
    if (max < min) this.fail(`{${min},${max}} counts down`);
    return [min, max];
  }

  private atom(): Node {
    const c = this.source[this.at++]!;
    switch (c) {
      case "(":
        return this.group();
      case "[":
        return { kind: "test", test: this.set() };
      case ".":
        return { kind: "test", test: (unit) => unit !== 0x0a };
      case "^":
        return { kind: "assert", at: "start" };
      case "$":
        return { kind: "assert", at: "end" };
      case "*":
      case "+":
      case "?":
        return this.fail(`"${c}" has nothing to repeat`);
      case "\\":
        return this.escape();
      default:
        return { kind: "test", test: literal(c) };
    }
  }

  private group(): Node {
    if (this.take("?")) {
      const named = /^P<[A-Za-z_]\w*>/.exec(this.source.slice(this.at, this.at + 100));
      if (named !== null) this.at += named[0].length;
      else if (!this.take(":")) this.refuse("lookaround, flags and other (?...) groups");
    }
    const node = this.choice();
    if (!this.take(")")) this.fail("a group is not closed");
    return node;
  }

  private escape(): Node {
    const c = this.source[this.at++] ?? this.fail("it ends in a backslash");
    if (c === "A") return { kind: "assert", at: "start" };
    if (c === "Z") return { kind: "assert", at: "end" };
    return { kind: "test", test: this.escaped(c) };
  }

  private escaped(c: string): Test {
    const known = CLASSES.get(c);
    if (known !== undefined) return known;
    const control = CONTROLS.get(c);
    if (control !== undefined) return literal(control);
    if (/[0-9A-Za-z]/.test(c)) return this.refuse(`\\${c}`);
    return literal(c);
  }

  private set(): Test {
    const isNegated = this.take("^");
    const tests: Test[] = [];
    for (let first = true; ; first = false) {
      const c = this.source[this.at++] ?? this.fail("a [...] is not closed");
      if (c === "]" && !first) break;
      if (c === "\\") {
        tests.push(this.escaped(this.source[this.at++] ?? this.fail("it ends in a backslash")));
        continue;
      }
      const low = c.charCodeAt(0);
      if (this.peek("-") && this.source[this.at + 1] !== "]" && this.source[this.at + 1] !== undefined) {
        const end = this.source[this.at + 1]!;
        if (end === "\\") this.refuse("a range that ends in an escape");
        this.at += 2;
        const high = end.charCodeAt(0);
        if (high < low) this.fail(`[${c}-${end}] counts down`);
        tests.push((unit) => unit >= low && unit <= high);
      } else tests.push(literal(c));
    }
    const test: Test = (unit) => tests.some((one) => one(unit));
    return isNegated ? not(test) : test;
  }

  private peek(c: string): boolean {
    return this.source[this.at] === c;
  }

  private take(c: string): boolean {
    if (!this.peek(c)) return false;
    this.at++;
    return true;
  }

  private fail(problem: string): never {
    throw new FormatError(
      "format.config",
      `target "re:${this.source.slice(0, 200)}" is not a regular expression: ${problem} (character ${this.at})`,
      {
        source: this.source,
      },
    );
  }

  private refuse(what: string): never {
    throw new UnsupportedError(
      "unsupported.format",
      `target "re:${this.source.slice(0, 200)}" uses ${what}, which is not matched here; list the modules by name`,
      { source: this.source },
    );
  }
}

function literal(c: string): Test {
  const unit = c.charCodeAt(0);
  return (found) => found === unit;
}
