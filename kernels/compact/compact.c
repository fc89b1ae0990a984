/* Tensors of compact files (both levels) to their bytes, in plain C99.
 *
 * compact_decode takes the payload of one tensor as it lies in the file, with dtype and shape from the header that the file holds. It checks every
 * length, index and checksum: damaged input gives an error, never a read or write out of bounds. The format: docs/formats/compact.md.
 *
 *   cc -O2 -c compact.c                                        the decoder alone; compact_tables.h lies beside it
 *   cc -O2 -DCOMPACT_SELFTEST compact.c -o selftest && ./selftest ..
 *                                                              decodes a tensor of the artifact in .. and compares its SHA-256
 *
 * Numbers and bits: least significant first.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* compact_frequencies[4][58], compact_lengths[4][58]: the constants of the format. */
#include "compact_tables.h"

enum compact_kind { COMPACT_BF16, COMPACT_F16, COMPACT_BYTES };

typedef struct {
  enum compact_kind kind; /* BF16, F16, every other dtype */
  unsigned width;         /* bytes of an element: 1, 2, 4 or 8 */
  size_t bytes;           /* of the whole tensor */
  size_t first;           /* first dimension; 0 when the shape has fewer than two */
} compact_shape;

enum compact_status {
  COMPACT_OK = 0,
  COMPACT_BAD_TAIL = -1,     /* lengths, classes or tables */
  COMPACT_BAD_BLOCK = -2,    /* parts of a block do not fit it, or do not end with its elements */
  COMPACT_BAD_CHECKSUM = -3, /* other elements than were encoded */
  COMPACT_NO_MEMORY = -4
};

enum {
  TABLE_SIZE = 4096,
  TABLE_BITS = 12,
  ESCAPE = 57,
  RELATIVE_MIN = 116,
  RELATIVE_ZERO = 160,
  LANES = 16,
  QUEUES = 4,
  PARTS = 4,
  TAIL_BYTES = 12,
  FAR = 15
};
#define BLOCK_ELEMENTS 262144u
#define MAX_COLS 131072u
#define RAW_PIECE 262144u
#define SPLIT_ELEMENTS 16384u
#define STATE_MIN 65536u
#define MAX_PROGRESSION 1048576u

typedef struct {
  uint16_t frequency[256];
  uint16_t start[256];
  uint8_t by_slot[TABLE_SIZE];
  uint16_t by_bits[TABLE_SIZE]; /* symbol << 8 | length */
} compact_table;

typedef struct {
  size_t rows, cols, rows_per_block, blocks;
  unsigned element; /* bytes */
} compact_view;

typedef struct {
  compact_view view;
  enum compact_kind kind;
  int level; /* 1 max, 2 fast */
  int16_t *row_class;
  int16_t *col_class;
  compact_table *tables; /* four, or one for bytes */
  uint8_t *symbols;      /* a block's */
  uint8_t *queue;        /* its symbols by table */
} compact_tensor;

static uint32_t compact_u16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t compact_u32(const uint8_t *p) { return compact_u16(p) | compact_u16(p + 2) << 16; }
static uint64_t compact_u64(const uint8_t *p) { return (uint64_t)compact_u32(p) | (uint64_t)compact_u32(p + 4) << 32; }
static size_t compact_min(size_t a, size_t b) { return a < b ? a : b; }
static size_t compact_words(size_t bytes) { return (bytes + 3) / 4 * 4; }
static uint32_t compact_rotate(uint32_t x) { return x << 13 | x >> 19; }

static uint32_t compact_checksum(const uint8_t *bytes, size_t size) {
  uint32_t lane[16];
  uint32_t h = (uint32_t)size;
  size_t at;
  unsigned j;
  for (j = 0; j < 16; j++) lane[j] = j;
  for (at = 0; at < size; at += 64) {
    uint8_t stripe[64] = {0};
    memcpy(stripe, bytes + at, compact_min(64, size - at));
    for (j = 0; j < 16; j++) lane[j] = compact_rotate((lane[j] + compact_u32(stripe + 4 * j)) * 0x9e3779b1u);
  }
  for (j = 0; j < 16; j++) h = compact_rotate((h + lane[j]) * 0x9e3779b1u);
  h = (h ^ h >> 15) * 0x85ebca77u;
  h = (h ^ h >> 13) * 0xc2b2ae3du;
  return h ^ h >> 16;
}

/* Canonical codes, first bit lowest. Returns whether the lengths make a complete code. */
static int compact_codes(const uint8_t *length, size_t symbols, uint16_t by_bits[TABLE_SIZE]) {
  uint32_t code = 0, space = 0;
  unsigned bits, bit;
  size_t s;
  for (s = 0; s < symbols; s++) {
    if (length[s] > TABLE_BITS) return 0;
    if (length[s] > 0) space += (uint32_t)TABLE_SIZE >> length[s];
  }
  if (space != TABLE_SIZE) return 0;
  for (bits = 1; bits <= TABLE_BITS; bits++) {
    code <<= 1;
    for (s = 0; s < symbols; s++) {
      uint32_t reversed = 0, rest;
      if (length[s] != bits) continue;
      for (bit = 0; bit < bits; bit++) reversed |= (code >> bit & 1u) << (bits - 1 - bit);
      for (rest = reversed; rest < TABLE_SIZE; rest += 1u << bits) by_bits[rest] = (uint16_t)(s << 8 | bits);
      code++;
    }
  }
  return 1;
}

/* Lengths of at most twelve bits with the least total: package-merge; symbols go before packages of the same weight. */
static void compact_limited(const uint16_t *frequency, uint8_t length[256]) {
  uint32_t list[512], next[512];
  uint8_t is_leaf[TABLE_BITS][512];
  unsigned order[256];
  size_t count = 0, size, i, level, taken;
  for (i = 0; i < 256; i++) {
    size_t at;
    length[i] = 0;
    if (frequency[i] == 0) continue;
    for (at = count; at > 0 && frequency[order[at - 1]] > frequency[i]; at--) order[at] = order[at - 1];
    order[at] = (unsigned)i;
    count++;
  }
  for (i = 0; i < count; i++) {
    list[i] = frequency[order[i]];
    is_leaf[0][i] = 1;
  }
  size = count;
  for (level = 1; level < TABLE_BITS; level++) {
    size_t leaf = 0, pair = 0, pairs = size / 2;
    for (i = 0; leaf < count || pair < pairs; i++) {
      uint32_t package = pair < pairs ? list[2 * pair] + list[2 * pair + 1] : 0;
      int take_leaf = leaf < count && (pair >= pairs || frequency[order[leaf]] <= package);
      is_leaf[level][i] = (uint8_t)take_leaf;
      next[i] = take_leaf ? frequency[order[leaf]] : package;
      if (take_leaf) leaf++;
      else pair++;
    }
    size = i;
    memcpy(list, next, size * sizeof *list);
  }
  taken = count < 2 ? 0 : 2 * count - 2;
  for (level = TABLE_BITS; level-- > 0;) {
    size_t leaves = 0;
    for (i = 0; i < taken; i++) leaves += is_leaf[level][i];
    for (i = 0; i < leaves; i++) length[order[i]]++;
    taken = 2 * (taken - leaves);
  }
}

static int compact_build(compact_table *table, const uint16_t *frequency, const uint8_t *lengths, size_t symbols) {
  uint8_t own[256];
  size_t s;
  uint32_t at = 0;
  memset(table, 0, sizeof *table);
  for (s = 0; s < symbols; s++) {
    table->frequency[s] = frequency[s];
    table->start[s] = (uint16_t)at;
    if (at + frequency[s] > TABLE_SIZE) return 0;
    memset(table->by_slot + at, (int)s, frequency[s]);
    at += frequency[s];
  }
  if (at != TABLE_SIZE) return 0;
  if (lengths == NULL) {
    compact_limited(table->frequency, own);
    lengths = own;
  }
  return compact_codes(lengths, symbols, table->by_bits);
}

/* How the tensor is looked at: rows, and blocks of rows. Returns 0 when it can only be raw. */
static int compact_look(const compact_shape *shape, compact_view *view) {
  size_t elements, cols;
  view->element = shape->kind == COMPACT_BYTES ? 1 : 2;
  elements = shape->bytes / view->element;
  if (elements == 0 || shape->bytes % view->element != 0) return 0;
  cols = elements;
  if (shape->first > 0 && elements % shape->first == 0) cols = elements / shape->first;
  if (cols < 16) cols = elements;
  if (cols > MAX_COLS) {
    size_t parts = (cols + MAX_COLS - 1) / MAX_COLS;
    while (parts <= cols / 1024 && cols % parts != 0) parts++;
    if (parts > cols / 1024) return 0;
    cols /= parts;
  }
  view->cols = cols;
  view->rows = elements / cols;
  view->rows_per_block = compact_min(view->rows, BLOCK_ELEMENTS / cols < 1 ? 1 : BLOCK_ELEMENTS / cols);
  view->blocks = (view->rows + view->rows_per_block - 1) / view->rows_per_block;
  return 1;
}

/* Bits of the tail. Past the end they are 0 and `at` says so. */
typedef struct {
  const uint8_t *bytes;
  size_t size;
  size_t at;
} compact_bits;

static uint32_t compact_peek(const compact_bits *bits) {
  uint32_t value = 0;
  size_t i = bits->at / 8;
  unsigned k;
  for (k = 0; k < 3; k++)
    if (i + k < bits->size) value |= (uint32_t)bits->bytes[i + k] << 8 * k;
  return value >> bits->at % 8;
}

static uint32_t compact_take(compact_bits *bits, unsigned count) {
  uint32_t value = compact_peek(bits) & ((1u << count) - 1);
  bits->at += count;
  return value;
}

static int compact_classes(compact_bits *bits, int16_t *out, size_t count, int base, unsigned parameter, int min, int max) {
  uint16_t *by_bits = NULL;
  size_t i;
  int ok = parameter < 8 || parameter == 15;
  if (parameter == 15) {
    uint8_t lengths[256];
    size_t symbols = compact_take(bits, 8) + 1;
    for (i = 0; i < symbols; i++) lengths[i] = (uint8_t)compact_take(bits, 4);
    by_bits = (uint16_t *)calloc(TABLE_SIZE, sizeof *by_bits);
    ok = by_bits != NULL && compact_codes(lengths, symbols, by_bits);
  }
  for (i = 0; ok && i < count; i++) {
    int value;
    if (by_bits != NULL) {
      uint16_t entry = by_bits[compact_peek(bits) & (TABLE_SIZE - 1)];
      bits->at += entry & 255u;
      value = base + (entry >> 8);
    } else {
      uint32_t v = 0;
      while (v <= 2048 && compact_take(bits, 1) == 1) v++;
      v = (v << parameter) + compact_take(bits, parameter);
      value = base + (v % 2 == 0 ? (int)(v / 2) : -(int)((v + 1) / 2));
    }
    ok = value >= min && value <= max && bits->at <= 8 * bits->size;
    out[i] = (int16_t)value;
  }
  free(by_bits);
  return ok;
}

/* Escapes in nibbles; past the end they are 0 and `at` says so. */
typedef struct {
  const uint8_t *bytes;
  size_t size;
  size_t at;
} compact_escapes;

static int compact_nibble(compact_escapes *escapes) {
  size_t i = escapes->at++;
  if (i / 2 >= escapes->size) return 0;
  return i % 2 == 0 ? escapes->bytes[i / 2] & 15 : escapes->bytes[i / 2] >> 4;
}

static int compact_escape(compact_escapes *escapes, int expected) {
  int value = compact_nibble(escapes);
  int relative, coded;
  if (value < FAR) return expected + RELATIVE_MIN - 1 - value;
  relative = compact_nibble(escapes);
  relative |= compact_nibble(escapes) << 4;
  if (relative < 255) return expected + relative;
  coded = compact_nibble(escapes);
  coded |= compact_nibble(escapes) << 4;
  coded |= compact_nibble(escapes) << 8;
  return coded | compact_nibble(escapes) << 12;
}

static unsigned compact_table_of(const compact_tensor *tensor, size_t row, size_t col) {
  if (tensor->kind == COMPACT_BYTES) return 0;
  return (unsigned)(tensor->row_class[row] + tensor->col_class[col]) & 3u;
}

static int compact_rans(const compact_tensor *tensor, size_t first_row, size_t rows, const uint8_t *states, const uint8_t *words, size_t size) {
  uint32_t state[LANES];
  size_t at = 0, r, c, cols = tensor->view.cols;
  unsigned lane;
  for (lane = 0; lane < LANES; lane++) {
    state[lane] = compact_u32(states + 4 * lane);
    if (state[lane] < STATE_MIN) return 0;
  }
  for (r = 0; r < rows; r++) {
    for (c = 0; c < cols; c++) {
      const compact_table *table = tensor->tables + compact_table_of(tensor, first_row + r, c);
      uint32_t x = state[c % LANES];
      uint32_t slot = x % TABLE_SIZE;
      unsigned symbol = table->by_slot[slot];
      x = table->frequency[symbol] * (x >> TABLE_BITS) + slot - table->start[symbol];
      if (x < STATE_MIN) {
        uint32_t word = at < size ? words[at] : 0;
        if (at + 1 < size) word |= (uint32_t)words[at + 1] << 8;
        x = x << 16 | word;
        at += 2;
      }
      state[c % LANES] = x;
      tensor->symbols[r * cols + c] = (uint8_t)symbol;
    }
  }
  for (lane = 0; lane < LANES; lane++)
    if (state[lane] != STATE_MIN) return 0;
  return at <= size && size - at < 4;
}

/* Returns the bit after the last code. */
static size_t compact_stream(const compact_table *table, const uint8_t *stream, size_t size, size_t bit, uint8_t *out, size_t count) {
  compact_bits bits;
  size_t i;
  bits.bytes = stream;
  bits.size = size;
  bits.at = bit;
  for (i = 0; i < count; i++) {
    uint16_t entry = table->by_bits[compact_peek(&bits) & (TABLE_SIZE - 1)];
    out[i] = (uint8_t)(entry >> 8);
    bits.at += entry & 255u;
  }
  return bits.at;
}

static int compact_huffman(const compact_tensor *tensor, size_t first_row, size_t rows, const uint8_t *lengths, const uint8_t *streams, size_t size) {
  size_t cols = tensor->view.cols, count = rows * cols, quarter = (count + QUEUES - 1) / QUEUES;
  size_t begin[QUEUES + 1] = {0}, next[QUEUES];
  size_t i, r, c, at = 0, bit = 0;
  unsigned t, p;
  int is_split = count >= SPLIT_ELEMENTS;
  for (r = 0; r < rows && tensor->kind != COMPACT_BYTES; r++)
    for (c = 0; c < cols; c++) begin[compact_table_of(tensor, first_row + r, c) + 1]++;
  for (t = 0; t < QUEUES; t++) {
    if (tensor->kind == COMPACT_BYTES) begin[t + 1] = compact_min(count, quarter * (t + 1));
    else begin[t + 1] += begin[t];
  }
  for (t = 0; t < QUEUES; t++) {
    const compact_table *table = tensor->tables + (tensor->kind == COMPACT_BYTES ? 0 : t);
    uint8_t *queue = tensor->queue + begin[t];
    size_t length = begin[t + 1] - begin[t], part = (length + PARTS - 1) / PARTS;
    next[t] = begin[t];
    if (!is_split) {
      bit = compact_stream(table, streams, size, bit, queue, length);
      continue;
    }
    for (p = 0; p < PARTS; p++) {
      unsigned s = PARTS * t + p;
      size_t from = compact_min(p * part, length), to = compact_min(from + part, length);
      size_t bytes = s + 1 < QUEUES * PARTS ? compact_u16(lengths + 2 * s) : size - at;
      size_t used;
      if (bytes > size - at) return 0;
      used = (compact_stream(table, streams + at, bytes, 0, queue + from, to - from) + 7) / 8;
      if (s + 1 < QUEUES * PARTS ? used != bytes : used > bytes || bytes - used >= 4) return 0;
      at += bytes;
    }
  }
  bit = (bit + 7) / 8;
  if (!is_split && (bit > size || size - bit >= 4)) return 0;
  if (tensor->kind == COMPACT_BYTES) memcpy(tensor->symbols, tensor->queue, count);
  else
    for (i = 0; i < count; i++) tensor->symbols[i] = tensor->queue[next[compact_table_of(tensor, first_row + i / cols, i % cols)]++];
  return 1;
}

/* Sign and low mantissa bits of element `i`. */
static unsigned compact_raw(enum compact_kind kind, const uint8_t *raw, size_t count, size_t i) {
  size_t group, left, g, within;
  unsigned bits, k;
  if (kind == COMPACT_F16) return raw[i] | (raw[compact_words(count) + i / 8] >> i % 8 & 1u) << 15;
  group = i / 64;
  left = compact_min(64, count - 64 * group);
  g = (left + 3) / 4;
  within = i % 64;
  raw += 48 * group;
  if (within < 3 * g) bits = raw[within] & 63u;
  else {
    bits = 0;
    for (k = 0; k < 3; k++) bits |= (unsigned)(raw[k * g + within - 3 * g] >> 6) << 2 * k;
  }
  return (bits & 31u) | (bits & 32u) << 10;
}

static size_t compact_raw_bytes(enum compact_kind kind, size_t count) {
  if (kind == COMPACT_BYTES) return 0;
  if (kind == COMPACT_F16) return compact_words(count) + 4 * ((count + 31) / 32);
  return compact_words(count / 64 * 48 + 3 * ((count % 64 + 3) / 4));
}

static int compact_block(const compact_tensor *tensor, size_t b, const uint8_t *block, size_t size, uint8_t *out) {
  const compact_view *view = &tensor->view;
  size_t first_row = b * view->rows_per_block;
  size_t rows = compact_min(view->rows_per_block, view->rows - first_row);
  size_t cols = view->cols, count = rows * cols, bytes = count * view->element;
  int is_split = count >= SPLIT_ELEMENTS;
  size_t header = tensor->level == 1 ? 4 + 4 * LANES : is_split ? 2 * QUEUES * PARTS : 2;
  size_t raw_bytes = compact_raw_bytes(tensor->kind, count);
  size_t fixed, i;
  const uint8_t *raw = block + header;
  compact_escapes escapes;
  int ok;
  if (size == compact_words(bytes)) {
    memcpy(out, block, bytes);
    return 1;
  }
  if (size < header) return 0;
  escapes.size = compact_u16(block);
  escapes.at = 0;
  fixed = header + raw_bytes + escapes.size;
  if (fixed > size) return 0;
  escapes.bytes = raw + raw_bytes;
  ok = tensor->level == 1 ? compact_rans(tensor, first_row, rows, block + 4, block + fixed, size - fixed)
                          : compact_huffman(tensor, first_row, rows, block + 2, block + fixed, size - fixed);
  if (!ok) return 0;
  if (tensor->kind == COMPACT_BYTES) {
    memcpy(out, tensor->symbols, count);
    return 1;
  }
  for (i = 0; i < count; i++) {
    int q = tensor->row_class[first_row + i / cols] + tensor->col_class[i % cols];
    int octaves = q >= 0 ? q / 4 : -((3 - q) / 4);
    int zero = 4 * octaves - RELATIVE_ZERO;
    int symbol = tensor->symbols[i];
    unsigned coded = (unsigned)(symbol == ESCAPE ? compact_escape(&escapes, zero) : zero + symbol + RELATIVE_MIN);
    unsigned pattern = compact_raw(tensor->kind, raw, count, i);
    pattern |= tensor->kind == COMPACT_BF16 ? (coded & 0x3ffu) << 5 : (coded & 0x7fu) << 8;
    out[2 * i] = (uint8_t)pattern;
    out[2 * i + 1] = (uint8_t)(pattern >> 8);
  }
  return (escapes.at + 1) / 2 == escapes.size;
}

static int compact_raw_tensor(const compact_shape *shape, const uint8_t *payload, size_t size, size_t tail, uint8_t *out) {
  size_t pieces = (shape->bytes + RAW_PIECE - 1) / RAW_PIECE, p;
  if (tail != TAIL_BYTES + 4 * pieces || size - tail != compact_words(shape->bytes)) return COMPACT_BAD_TAIL;
  if (shape->bytes > 0) memcpy(out, payload, shape->bytes);
  for (p = 0; p < pieces; p++) {
    size_t at = p * RAW_PIECE;
    if (compact_checksum(out + at, compact_min(RAW_PIECE, shape->bytes - at)) != compact_u32(payload + size - tail + 4 * p)) return COMPACT_BAD_CHECKSUM;
  }
  return COMPACT_OK;
}

static int compact_progression(const compact_shape *shape, const uint8_t *tail, size_t size, uint8_t *out) {
  uint64_t value = compact_u64(tail), step = compact_u64(tail + 8);
  size_t at;
  unsigned i;
  if (size != 20 + TAIL_BYTES || shape->bytes > MAX_PROGRESSION || shape->width == 0 || shape->bytes % shape->width != 0) return COMPACT_BAD_TAIL;
  for (at = 0; at < shape->bytes; at += shape->width) {
    for (i = 0; i < shape->width; i++) out[at + i] = (uint8_t)(value >> 8 * i);
    value += step;
  }
  return compact_checksum(out, shape->bytes) == compact_u32(tail + 16) ? COMPACT_OK : COMPACT_BAD_CHECKSUM;
}

/* Classes and tables of a tensor of blocks; the index begins at `index` of the tail. */
static int compact_prepare(compact_tensor *tensor, const uint8_t *tail, size_t index, const uint8_t *fixed) {
  const compact_view *view = &tensor->view;
  unsigned t;
  size_t i;
  if (tensor->kind == COMPACT_BYTES) {
    uint16_t frequency[256] = {0};
    size_t first = fixed[2], last = fixed[3];
    if (last < first || index != compact_words(((last - first + 1) * 12 + 7) / 8)) return 0;
    for (i = first; i <= last; i++) {
      size_t bit = 12 * (i - first);
      frequency[i] = (uint16_t)(compact_u16(tail + bit / 8) >> bit % 8 & 0xfffu);
    }
    return compact_build(tensor->tables, frequency, NULL, 256);
  }
  {
    compact_bits bits;
    int row_base = (int16_t)compact_u16(fixed + 4), col_base = (int16_t)compact_u16(fixed + 6);
    bits.bytes = tail;
    bits.size = index;
    bits.at = 0;
    if (!compact_classes(&bits, tensor->row_class, view->rows, row_base, fixed[2], 0, 1023)) return 0;
    if (fixed[3] == 255) memset(tensor->col_class, 0, view->cols * sizeof *tensor->col_class);
    else if (!compact_classes(&bits, tensor->col_class, view->cols, col_base, fixed[3], -127, 127)) return 0;
    if ((bits.at + 31) / 32 * 4 != index) return 0;
  }
  for (t = 0; t < 4; t++)
    if (!compact_build(tensor->tables + t, compact_frequencies[t], compact_lengths[t], ESCAPE + 1)) return 0;
  return 1;
}

static int compact_blocks(compact_tensor *tensor, const compact_shape *shape, const uint8_t *payload, size_t size, size_t tail, uint8_t *out) {
  const compact_view *view = &tensor->view;
  const uint8_t *start = payload + size - tail;
  size_t sums = tail - TAIL_BYTES - 4 * view->blocks, index = sums - 4 * (view->blocks - 1);
  size_t unit = view->rows_per_block * view->cols * view->element, end = size - tail, at = 0, b;
  if (!compact_prepare(tensor, start, index, payload + size - TAIL_BYTES)) return COMPACT_BAD_TAIL;
  for (b = 0; b < view->blocks; b++) {
    size_t bytes = compact_min(unit, shape->bytes - b * unit);
    size_t length = b + 1 < view->blocks ? compact_u32(start + index + 4 * b) : end - at;
    if (length > end - at || length % 4 != 0 || length > compact_words(bytes)) return COMPACT_BAD_TAIL;
    if (!compact_block(tensor, b, payload + at, length, out + b * unit)) return COMPACT_BAD_BLOCK;
    if (compact_checksum(out + b * unit, bytes) != compact_u32(start + sums + 4 * b)) return COMPACT_BAD_CHECKSUM;
    at += length;
  }
  return at == end ? COMPACT_OK : COMPACT_BAD_TAIL;
}

/* Decodes a tensor to `shape->bytes` bytes. */
int compact_decode(const compact_shape *shape, const uint8_t *payload, size_t size, uint8_t *out) {
  compact_tensor tensor;
  size_t tail, block;
  int status = COMPACT_NO_MEMORY;
  unsigned mode;
  if (size < TAIL_BYTES) return COMPACT_BAD_TAIL;
  tail = compact_u32(payload + size - 4);
  if (tail < TAIL_BYTES || tail > size || tail % 4 != 0) return COMPACT_BAD_TAIL;
  mode = payload[size - TAIL_BYTES];
  if (mode == 0) return compact_raw_tensor(shape, payload, size, tail, out);
  if (mode == 3) return tail == size ? compact_progression(shape, payload, tail, out) : COMPACT_BAD_TAIL;
  if (!compact_look(shape, &tensor.view) || mode != (shape->kind == COMPACT_BYTES ? 2u : 1u)) return COMPACT_BAD_TAIL;
  tensor.kind = shape->kind;
  tensor.level = payload[size - TAIL_BYTES + 1];
  if (tensor.level != 1 && tensor.level != 2) return COMPACT_BAD_TAIL;
  if (tensor.view.blocks > (tail - TAIL_BYTES + 4) / 8) return COMPACT_BAD_TAIL;
  /* A class takes a bit at least: nothing larger than the file is made. */
  if (mode == 1 && tensor.view.rows > 8 * tail) return COMPACT_BAD_TAIL;
  block = tensor.view.rows_per_block * tensor.view.cols;
  tensor.row_class = (int16_t *)malloc(2 * (mode == 1 ? tensor.view.rows : 1));
  tensor.col_class = (int16_t *)malloc(2 * tensor.view.cols);
  tensor.tables = (compact_table *)malloc(4 * sizeof *tensor.tables);
  tensor.symbols = (uint8_t *)malloc(block);
  tensor.queue = (uint8_t *)malloc(block);
  if (tensor.row_class != NULL && tensor.col_class != NULL && tensor.tables != NULL && tensor.symbols != NULL && tensor.queue != NULL)
    status = compact_blocks(&tensor, shape, payload, size, tail, out);
  free(tensor.row_class);
  free(tensor.col_class);
  free(tensor.tables);
  free(tensor.symbols);
  free(tensor.queue);
  return status;
}

#ifdef COMPACT_SELFTEST
#include "compact_host.h"

int main(int argc, char **argv) {
  size_t i;
  int wrong = 0;
  for (i = 0; i < sizeof compact_tests / sizeof *compact_tests; i++) wrong += compact_run_test(argc, argv, &compact_tests[i]);
  return wrong != 0;
}
#endif
