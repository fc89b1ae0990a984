// Between patterns and symbols. AssemblyScript, not TypeScript.

const ESCAPE: i32 = 57;
const RELATIVE_MIN: i32 = 116;
const RELATIVE_ZERO: i32 = 160;
/** A nibble of escapes that says that more follow. */
const FAR: i32 = 15;

/** Where escapes are written, and read, as a number of nibbles from `escapes` on; a reader that needs more than there are gets zeros and goes past the end. */
let escapes: usize = 0;
let nibbles: usize = 0;
let nibbleEnd: usize = 0;

/**
 * Symbols of `rows` rows of floats, one byte each: symbol | table << 6, to `symbols`.
 *
 * `rowClasses`: i16 by row. `zeros`: i16 by (row class mod 4) and column, four times the whole octaves; `tableBits`: u8 likewise, table << 6.
 * `pitch`: elements from row to row of `x`. `to`: receives escapes, at most 4 bytes an element.
 * @returns bytes of escapes.
 */
export function toSymbols(x: usize, rows: i32, cols: i32, kind: i32, rowClasses: usize, zeros: usize, tableBits: usize, stride: i32, pitch: i32, symbols: usize, to: usize): i32 {
  escapes = to;
  nibbles = 0;
  const shift: i32 = kind == 0 ? 5 : 8;
  const mask: i32 = kind == 0 ? 0x3ff : 0x7f;
  for (let r = 0; r < rows; r++) {
    const q = <i32>load<i16>(rowClasses + (<usize>r << 1));
    const z = zeros + <usize>((q & 3) * stride) * 2;
    const t = tableBits + <usize>((q & 3) * stride);
    const base = rowBase(q);
    const bases = i16x8.splat(<i16>base);
    const masks = i16x8.splat(<i16>mask);
    const most = i16x8.splat(<i16>ESCAPE), escape = i8x16.splat(<i8>ESCAPE);
    const whole = cols & ~15;
    let c = 0;
    while (c < whole) {
      // Escapes are looked for in the condition: a loop of one block keeps its constants in registers.
      let found: i32;
      do {
        const at = x + (<usize>c << 1), zero = z + (<usize>c << 1);
        const first = i16x8.sub(v128.and(i16x8.shr_u(v128.load(at), shift), masks), i16x8.add(bases, v128.load(zero)));
        const second = i16x8.sub(v128.and(i16x8.shr_u(v128.load(at, 16), shift), masks), i16x8.add(bases, v128.load(zero, 16)));
        const bytes = i8x16.narrow_i16x8_u(i16x8.min_u(first, most), i16x8.min_u(second, most));
        v128.store(symbols + c, v128.or(bytes, v128.load(t + c)));
        found = i8x16.bitmask(i8x16.eq(bytes, escape));
        c += 16;
      } while (((found - 1) & (c - whole)) < 0);
      for (; found != 0; found &= found - 1) putEscape(x, c - 16 + ctz(found), shift, mask, base, z);
    }
    for (; c < cols; c++) {
      const symbol = ((<i32>load<u16>(x + (<usize>c << 1)) >> shift) & mask) - base - <i32>load<i16>(z + (<usize>c << 1));
      store<u8>(symbols + c, <u8>((<u32>symbol < <u32>ESCAPE ? symbol : ESCAPE) | <i32>load<u8>(t + c)));
      putEscape(x, c, shift, mask, base, z);
    }
    x += <usize>pitch << 1;
    symbols += cols;
  }
  return <i32>((nibbles + 1) >> 1);
}


function putEscape(x: usize, c: i32, shift: i32, mask: i32, base: i32, z: usize): void {
  const coded = (<i32>load<u16>(x + (<usize>c << 1)) >> shift) & mask;
  const symbol = coded - base - <i32>load<i16>(z + (<usize>c << 1));
  if (<u32>symbol < <u32>ESCAPE) return;
  const near = -1 - symbol;
  const relative = symbol + RELATIVE_MIN;
  if (<u32>near < <u32>FAR) putNibble(near);
  else {
    putNibble(FAR);
    const isByte = <u32>relative < 255;
    putNibble(isByte ? relative & 15 : 15);
    putNibble(isByte ? relative >> 4 : 15);
    if (isByte) return;
    for (let bit = 0; bit < 16; bit += 4) putNibble((coded >> bit) & 15);
  }
}

function putNibble(value: i32): void {
  const at = escapes + (nibbles >> 1);
  store<u8>(at, <u8>((nibbles & 1) == 0 ? value : <i32>load<u8>(at) | (value << 4)));
  nibbles++;
}

function takeNibble(): i32 {
  if (nibbles >= nibbleEnd) {
    nibbles = nibbleEnd + 2;
    return 0;
  }
  const byte = <i32>load<u8>(escapes + (nibbles >> 1));
  return (nibbles++ & 1) == 0 ? byte & 15 : byte >> 4;
}

/** Starts reading `bytes` bytes of escapes. */
export function openEscapes(at: usize, bytes: i32): void {
  escapes = at;
  nibbles = 0;
  nibbleEnd = <usize>bytes << 1;
}

/** Whether the escapes end here. */
export function endsEscapes(): bool {
  return nibbles <= nibbleEnd && nibbleEnd - nibbles < 2;
}

function nextEscape(expected: i32): i32 {
  const near = takeNibble();
  if (near < FAR) return expected + RELATIVE_MIN - 1 - near;
  const low = takeNibble();
  const relative = low | (takeNibble() << 4);
  if (relative < 255) return expected + relative;
  let coded = 0;
  for (let bit = 0; bit < 16; bit += 4) coded |= takeNibble() << bit;
  return coded;
}

/** Four times the whole octaves of a row class, less what symbols start from: added to a symbol and the column's part it gives the coded bits. */
// @ts-ignore: decorator
@inline
export function rowBase(q: i32): i32 {
  return 4 * (q >> 2) - RELATIVE_ZERO + RELATIVE_MIN;
}

// Coded bits of eight elements among which are escapes; `scratch` is 48 bytes.
function codedWithEscapes(symbol: v128, coded: v128, scratch: usize): v128 {
  v128.store(scratch, symbol);
  v128.store(scratch, coded, 16);
  for (let j: usize = 0; j < 16; j += 2) {
    if (load<u16>(scratch + j) != <u16>ESCAPE) continue;
    // What the symbol stands for, less the symbol: the coded bits of relative 0.
    const expected = <i32>load<i16>(scratch + j + 16) - ESCAPE - RELATIVE_MIN;
    store<i16>(scratch + j + 16, <i16>nextEscape(expected));
  }
  return v128.load(scratch, 16);
}

// Raw bits of elements i..i+7 in their places. bf16: `raw` is a byte an element; f16: `raw` low bytes, `signs` bits.
// @ts-ignore: decorator
@inline
function rawEight(kind: i32, raw: usize, signs: usize, i: usize): v128 {
  const bytes = v128.load8x8_u(raw + i);
  if (kind == 0) {
    return v128.or(v128.and(bytes, i16x8.splat(0x1f)), i16x8.shl(v128.and(bytes, i16x8.splat(0x20)), 10));
  }
  const eight = <i32>load<u16>(signs + (i >> 3)) >> <i32>(i & 7);
  const bits = v128.and(i16x8.splat(<i16>eight), i16x8(1, 2, 4, 8, 16, 32, 64, 128));
  return v128.or(bytes, v128.and(i16x8.ne(bits, i16x8.splat(0)), i16x8.splat(<i16>0x8000)));
}

// Patterns of eight symbols.
// @ts-ignore: decorator
@inline
export function patternsOf(kind: i32, symbol: v128, bases: v128, zero: v128, raw: usize, signs: usize, i: usize, scratch: usize): v128 {
  let coded = i16x8.add(symbol, i16x8.add(bases, zero));
  if (v128.any_true(i16x8.eq(symbol, i16x8.splat(<i16>ESCAPE)))) coded = codedWithEscapes(symbol, coded, scratch);
  const rest = rawEight(kind, raw, signs, i);
  return kind == 0
    ? v128.or(i16x8.shl(v128.and(coded, i16x8.splat(0x3ff)), 5), rest)
    : v128.or(i16x8.shl(v128.and(coded, i16x8.splat(0x7f)), 8), rest);
}

// The last `count` elements of a row, fewer than eight: symbols (u16) lie in `scratch`, patterns go to `out`.
export function finishTail(kind: i32, scratch: usize, count: i32, base: i32, z: usize, raw: usize, signs: usize, i: usize, out: usize): void {
  for (let j = 0; j < count; j++) {
    const symbol = <i32>load<u16>(scratch + (<usize>j << 1));
    if (kind == 2) {
      store<u8>(out + j, <u8>symbol);
      continue;
    }
    const zero = base + <i32>load<i16>(z + (<usize>j << 1));
    const coded = symbol == ESCAPE ? nextEscape(zero - RELATIVE_MIN) : zero + symbol;
    const at = i + j;
    const low = <i32>load<u8>(raw + at);
    const pattern = kind == 0
      ? ((coded & 0x3ff) << 5) | (low & 0x1f) | ((low & 0x20) << 10)
      : ((coded & 0x7f) << 8) | low | (((<i32>load<u8>(signs + (at >> 3)) >> <i32>(at & 7)) & 1) << 15);
    store<u16>(out + (<usize>j << 1), <u16>pattern);
  }
}

/**
 * Sixteen bf16 patterns from symbols in bytes, to `out`. `zeros`: i16 by column, `raw`: a byte by element.
 * @returns which of them are escapes, a bit each: `putEscapes` is to finish those.
 */
// @ts-ignore: decorator
@inline
export function storeBf16(symbols: v128, bases: v128, zeros: usize, raw: usize, out: usize): i32 {
  const a = i16x8.add(i16x8.extend_low_i8x16_u(symbols), i16x8.add(bases, v128.load(zeros)));
  const b = i16x8.add(i16x8.extend_high_i8x16_u(symbols), i16x8.add(bases, v128.load(zeros, 16)));
  // Bytes of the raw bits in their places, low ones and high ones: the sign is bit 5.
  const r = v128.load(raw);
  const lows = v128.and(r, i8x16.splat(0x1f));
  const highs = v128.and(i16x8.shl(r, 2), i8x16.splat(<i8>0x80));
  const mask = i16x8.splat(0x7fe0);
  const restA = i8x16.shuffle(lows, highs, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const restB = i8x16.shuffle(lows, highs, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  v128.store(out, v128.or(v128.and(i16x8.shl(a, 5), mask), restA));
  v128.store(out, v128.or(v128.and(i16x8.shl(b, 5), mask), restB), 16);
  return i8x16.bitmask(i8x16.eq(symbols, i8x16.splat(<i8>ESCAPE)));
}

/** Finishes what `storeBf16` stored, where `which` says: the coded bits come from the escapes. */
export function putEscapes(which: i32, base: i32, zeros: usize, out: usize): void {
  for (; which != 0; which &= which - 1) {
    const at = <usize>(ctz(which) << 1);
    const coded = nextEscape(base + <i32>load<i16>(zeros + at) - RELATIVE_MIN);
    store<u16>(out + at, <u16>((<i32>load<u16>(out + at) & 0x801f) | ((coded & 0x3ff) << 5)));
  }
}

/** Elements of a row of f16 from its first `whole` symbols, a multiple of 16. `i`: number of the first one in the block. */
export function fromSymbols(symbols: usize, whole: i32, base: i32, zeros: usize, raw: usize, signs: usize, i: usize, scratch: usize, out: usize): void {
  const bases = i16x8.splat(<i16>base);
  for (let c: usize = 0; c < <usize>whole; c += 8) {
    v128.store(out + (c << 1), patternsOf(1, v128.load8x8_u(symbols + c), bases, v128.load(zeros + (c << 1)), raw, signs, i + c, scratch));
  }
}
