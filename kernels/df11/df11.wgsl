// DFloat11 blocks to bf16: one workgroup a block of 4096 bytes, each invocation two windows of 8 bytes (256 invocations, 512 windows).
//
// WGSL has no bytes: all arrays are words of four of them, the first in the low bits. Codes lie most significant bit first.
// The host checks the unit's structure and passes runs of blocks; out is zero before, two weights a word, the first in the low half.

struct Run {
  streamBytes: u32, // of the run and what follows it; zeros behind
  elements: u32,
  rows: u32, // of luts: decode rows and the row of lengths
  isLast: u32, // 1 when the run ends the unit
}

@group(0) @binding(0) var<uniform> run: Run;
@group(0) @binding(1) var<storage, read> luts: array<u32>;
@group(0) @binding(2) var<storage, read> stream: array<u32>;
@group(0) @binding(3) var<storage, read> signMantissa: array<u32>;
@group(0) @binding(4) var<storage, read> positions: array<u32>; // first element of each block within the run, then the run's elements
@group(0) @binding(5) var<storage, read> gaps: array<u32>;
@group(0) @binding(6) var<storage, read_write> out: array<atomic<u32>>;
// Bit 0: a code has no meaning. Bit 1: the codes of a block are not as many as positions say.
@group(0) @binding(7) var<storage, read_write> status: atomic<u32>;

const INVOCATIONS = 256u;
const WINDOWS = 2u;
const FIRST_POINTER = 240u;

var<workgroup> tables: array<u32, 1152>; // 18 rows of 256 bytes
var<workgroup> sums: array<array<u32, INVOCATIONS>, 2>;

struct Code {
  exponent: u32,
  length: u32, // 0: no meaning
}

struct Window {
  words: vec3<u32>, // 8 bytes and the 4 behind them, most significant byte first
  gap: u32,
  limit: u32, // bit of the window where no code starts any more
}

fn tableAt(index: u32) -> u32 {
  return (tables[index >> 2u] >> (8u * (index & 3u))) & 255u;
}

fn bigEndian(word: u32) -> u32 {
  return (word << 24u) | ((word & 0xff00u) << 8u) | ((word >> 8u) & 0xff00u) | (word >> 24u);
}

fn decodeAt(window: Window, at: u32) -> Code {
  let high = select(window.words.y, window.words.x, at < 32u);
  let low = select(window.words.z, window.words.y, at < 32u);
  let shift = at & 31u;
  // A shift by 32 is not defined: by 31 and by 1.
  let bits = (high << shift) | ((low >> 1u) >> (31u - shift));
  var value = tableAt(bits >> 24u);
  var taken = 8u;
  while (value >= FIRST_POINTER) {
    let row = 256u - value;
    if (row > run.rows - 2u || taken > 24u) {
      return Code(0u, 0u);
    }
    value = tableAt(row * 256u + ((bits >> (24u - taken)) & 255u));
    taken += 8u;
  }
  return Code(value, tableAt((run.rows - 1u) * 256u + value));
}

fn loadWindow(block: u32, index: u32) -> Window {
  let word = block * 1024u + index * 2u;
  let words = vec3<u32>(bigEndian(stream[word]), bigEndian(stream[word + 1u]), bigEndian(stream[word + 2u]));
  let bit = (block * 512u + index) * 5u;
  let first = (bit >> 5u);
  // Behind the last field there may be no word; it is not needed then.
  let next = min(first + 1u, arrayLength(&gaps) - 1u);
  let shift = bit & 31u;
  let field = (bigEndian(gaps[first]) << shift) | ((bigEndian(gaps[next]) >> 1u) >> (31u - shift));
  let start = word * 4u;
  return Window(words, field >> 27u, select(0u, min(run.streamBytes - start, 8u) * 8u, start < run.streamBytes));
}

fn countCodes(window: Window) -> u32 {
  var count = 0u;
  var at = window.gap;
  while (at < window.limit) {
    let length = decodeAt(window, at).length;
    if (length == 0u) {
      atomicOr(&status, 1u);
      break;
    }
    at += length;
    count++;
  }
  return count;
}

// Weights [start, start + count) of the run, none at or behind `end`. Words that two windows share are joined by atomicOr.
fn writeWeights(window: Window, start: u32, count: u32, end: u32) {
  var at = window.gap;
  var held = 0u;
  var isHeld = false;
  let stop = min(start + count, end);
  for (var i = start; i < stop; i++) {
    let code = decodeAt(window, at);
    at += code.length;
    let rest = (signMantissa[i >> 2u] >> (8u * (i & 3u))) & 255u;
    let pattern = ((rest & 0x80u) << 8u) | (code.exponent << 7u) | (rest & 0x7fu);
    if ((i & 1u) == 0u) {
      held = pattern;
      isHeld = true;
    } else {
      if (isHeld) {
        atomicStore(&out[i >> 1u], held | (pattern << 16u));
      } else {
        atomicOr(&out[i >> 1u], pattern << 16u);
      }
      isHeld = false;
    }
  }
  if (isHeld) {
    atomicOr(&out[(stop - 1u) >> 1u], held);
  }
}

@compute @workgroup_size(INVOCATIONS)
fn decode(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let block = group.x;
  for (var i = lane; i < run.rows * 64u; i += INVOCATIONS) {
    tables[i] = luts[i];
  }
  workgroupBarrier();

  let first = loadWindow(block, WINDOWS * lane);
  let second = loadWindow(block, WINDOWS * lane + 1u);
  let firstCount = countCodes(first);
  let secondCount = countCodes(second);
  sums[0][lane] = firstCount + secondCount;
  workgroupBarrier();

  // Inclusive sums in eight steps, from one half of `sums` to the other and back.
  for (var step = 0u; step < 8u; step++) {
    let reach = 1u << step;
    var sum = sums[step & 1u][lane];
    if (lane >= reach) {
      sum += sums[step & 1u][lane - reach];
    }
    sums[1u - (step & 1u)][lane] = sum;
    workgroupBarrier();
  }

  let begin = positions[block];
  let to = min(positions[block + 1u], run.elements);
  if (lane == 0u) {
    // Padding behind the last code of the unit may look like codes.
    let found = sums[0][INVOCATIONS - 1u];
    let endsUnit = run.isLast == 1u && to == run.elements;
    if (found < to - begin || (found != to - begin && !endsUnit)) {
      atomicOr(&status, 2u);
    }
  }
  let start = begin + sums[0][lane] - firstCount - secondCount;
  writeWeights(first, start, firstCount, to);
  writeWeights(second, start + firstCount, secondCount, to);
}
