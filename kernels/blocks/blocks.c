/* Block formats (BFP, MXINT8, MXFP8, MXFP6, MXFP4, NVFP4) and int8 products in plain C99, without dependencies.
 *
 * Rows lie in memory as in the artifact: a little-endian bit stream of codes (8-bit mantissas are signed bytes, 4-bit codes two a
 * byte, first in the low nibble) and one scale byte a block, E8M0 or e4m3. Every function gives the bits of the definition.
 *
 *   cc -std=c99 -O2 -ffp-contract=off -c blocks.c
 *   cc -std=c99 -O2 -ffp-contract=off -DBW_SELFTEST blocks.c -o selftest && ./selftest ..
 *                                        reads a tensor of the artifact in .. and compares SHA-256 of its values and products
 *
 * -ffp-contract=off keeps compilers from fusing a product and a sum, which would round once instead of twice.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum bw_kind { BW_INT = 0, BW_FLOAT = 1, BW_NVFP4 = 2 };
enum bw_rule { BW_FLOOR = 0, BW_EVEN = 1, BW_CEIL = 2, BW_RCEIL = 3, BW_MSE = 4 };

typedef struct {
  int kind;
  int bits;          /* of a code */
  int fraction;      /* integers: bits after the point; floats: mantissa bits */
  int bias;          /* floats */
  int top_code;      /* largest magnitude */
  int top_exponent;  /* of the largest power of two */
  double top;        /* largest element */
  int round_bits;    /* of rule even */
  size_t block;
  int rule;
  float divisor;     /* nvfp4 */
} bw_format;

static double bw_power(int e) {
  uint64_t bits = (uint64_t)(e + 1023) << 52;
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* floor(log2 |x|) of a finite x that is not 0; f32 values are never subnormal as doubles. */
static int bw_exponent(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (int)(bits >> 52 & 0x7ff) - 1023;
}

/* Half to even; |x| < 2^62. */
static double bw_round(double x) {
  double whole = (double)(int64_t)x;
  double rest = x - whole;
  if (rest > 0.5 || (rest == 0.5 && (int64_t)whole % 2 != 0)) return whole + 1;
  if (rest < -0.5 || (rest == -0.5 && (int64_t)whole % 2 != 0)) return whole - 1;
  return whole;
}

static float bw_nan(void) {
  uint32_t bits = 0x7fc00000;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static uint32_t bw_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

/* A format by name: bfp10 ... bfp24, mxint8, mxfp8-e4m3, mxfp8-e5m2, mxfp6-e3m2, mxfp6-e2m3, mxfp4, nvfp4. 0, or -1 for another. */
int bw_format_named(bw_format *format, const char *name, size_t block, int rule, float divisor) {
  static const struct {
    const char *name;
    int bits, mantissa, bias, top_code, top_exponent;
    double top;
    int round_bits;
  } floats[] = {{"mxfp8-e4m3", 8, 3, 7, 0x7e, 8, 448, 1}, {"mxfp8-e5m2", 8, 2, 15, 0x7b, 15, 57344, 2},
                {"mxfp6-e3m2", 6, 2, 3, 31, 4, 28, 2},    {"mxfp6-e2m3", 6, 3, 1, 31, 2, 7.5, 3},
                {"mxfp4", 4, 1, 1, 7, 2, 6, 1},           {"nvfp4", 4, 1, 1, 7, 2, 6, 1}};
  size_t i;
  int bits = 0;
  memset(format, 0, sizeof *format);
  format->block = block;
  format->rule = rule;
  format->divisor = divisor;
  if (block == 0 || rule < BW_FLOOR || rule > BW_MSE) return -1;
  for (i = 0; i < sizeof floats / sizeof floats[0]; i++) {
    if (strcmp(name, floats[i].name) != 0) continue;
    format->kind = strcmp(name, "nvfp4") == 0 ? BW_NVFP4 : BW_FLOAT;
    format->bits = floats[i].bits;
    format->fraction = floats[i].mantissa;
    format->bias = floats[i].bias;
    format->top_code = floats[i].top_code;
    format->top_exponent = floats[i].top_exponent;
    format->top = floats[i].top;
    format->round_bits = floats[i].round_bits;
    return 0;
  }
  if (strcmp(name, "mxint8") == 0) bits = 8;
  else if (strncmp(name, "bfp", 3) == 0 && name[3] >= '1' && name[3] <= '2' && name[4] >= '0' && name[4] <= '9' && name[5] == 0)
    bits = (name[3] - '0') * 10 + (name[4] - '0') - 8;
  if (bits < 2 || bits > 16) return -1;
  format->kind = BW_INT;
  format->bits = bits;
  format->fraction = bits - 2;
  format->round_bits = bits - 2;
  format->top_code = (1 << (bits - 1)) - 1;
  format->top = format->top_code / bw_power(bits - 2);
  return 0;
}

/* Bytes of a packed row. */
size_t bw_row_bytes(const bw_format *format, size_t cols) { return (cols * (size_t)format->bits + 7) / 8; }

/* Scale bytes of a row. */
size_t bw_row_blocks(const bw_format *format, size_t cols) { return cols / format->block + (cols % format->block != 0); }

/* Code i of a packed row; integers with their sign. */
int bw_code(const bw_format *format, const uint8_t *row, size_t i) {
  size_t bit = i * (size_t)format->bits;
  unsigned shift = (unsigned)(bit % 8), have = 8 - shift, code;
  const uint8_t *p = row + bit / 8;
  code = (unsigned)*p >> shift;
  while (have < (unsigned)format->bits) {
    code |= (unsigned)*++p << have;
    have += 8;
  }
  code &= (1u << format->bits) - 1u;
  if (format->kind == BW_INT && code >> (format->bits - 1) != 0) return (int)code - (1 << format->bits);
  return (int)code;
}

static void bw_put(const bw_format *format, uint8_t *row, size_t i, int value) {
  size_t bit = i * (size_t)format->bits;
  unsigned shift = (unsigned)(bit % 8), left = (unsigned)format->bits;
  unsigned code = (unsigned)value & ((1u << format->bits) - 1u);
  uint8_t *p = row + bit / 8;
  while (left > 0) {
    unsigned take = 8 - shift < left ? 8 - shift : left;
    *p = (uint8_t)(*p | (code & ((1u << take) - 1u)) << shift);
    code >>= take;
    left -= take;
    shift = 0;
    p++;
  }
}

/* Nearest code of a magnitude of small floats, ties to even, held at the largest. */
static int bw_float_code(double y, int mantissa, int bias, int top_code) {
  int e, code;
  if (y == 0) return 0;
  e = bw_exponent(y);
  if (e > 40) return top_code;
  if (e < 1 - bias) e = 1 - bias;
  code = (int)bw_round(y * bw_power(mantissa - e)) + (e - (1 - bias)) * (1 << mantissa);
  return code < top_code ? code : top_code;
}

static double bw_float_value(int code, int mantissa, int bias) {
  int field = code >> mantissa, rest = code & ((1 << mantissa) - 1);
  if (field == 0) return rest * bw_power(1 - bias - mantissa);
  return (rest + (1 << mantissa)) * bw_power(field - bias - mantissa);
}

/* What one stands for under a scale byte; integers: code 1. */
float bw_unit(const bw_format *format, uint8_t byte) {
  if (format->kind == BW_NVFP4) {
    double scale;
    if ((byte & 0x7f) == 0x7f) return bw_nan();
    scale = bw_float_value(byte & 0x7f, 3, 7);
    return (float)(byte & 0x80 ? -scale : scale) / format->divisor;
  }
  if (byte == 255) return bw_nan();
  return (float)bw_power(byte - 127 - (format->kind == BW_INT ? format->fraction : 0));
}

static int bw_encode(const bw_format *format, float x, float unit) {
  if (format->kind == BW_INT) {
    double q = bw_round((double)x / unit);
    if (q > format->top_code) return format->top_code;
    return q < -format->top_code ? -format->top_code : (int)q;
  } else {
    float positive = x < 0 ? -x : x;
    double y = format->kind == BW_NVFP4 ? (double)(positive / unit) : (double)positive / unit;
    int sign = (int)(bw_bits(x) >> 31) << (format->bits - 1);
    /* A quotient that left f32 is the largest element. */
    return sign | (y > 1e30 ? format->top_code : bw_float_code(y, format->fraction, format->bias, format->top_code));
  }
}

static float bw_value(const bw_format *format, int code, float unit) {
  if (format->kind == BW_INT) return (float)code * unit;
  {
    int sign = 1 << (format->bits - 1);
    double element;
    int magnitude = code & (sign - 1);
    /* e5m2 has infinities and NaN, e4m3 one NaN: what no encoder writes. */
    if (format->bits == 8 && magnitude > format->top_code) {
      float special = bw_nan();
      if (format->fraction == 2 && magnitude == 0x7c) {
        uint32_t bits = 0x7f800000;
        memcpy(&special, &bits, sizeof special);
      }
      return (code & sign ? -special : special) * unit;
    }
    element = bw_float_value(magnitude, format->fraction, format->bias);
    return (float)(code & sign ? -element : element) * unit;
  }
}

static double bw_error(const bw_format *format, const float *x, size_t n, uint8_t byte) {
  double sums[4] = {0, 0, 0, 0};
  float unit = bw_unit(format, byte);
  size_t i;
  for (i = 0; i < n; i++) {
    float e = x[i] - bw_value(format, bw_encode(format, x[i], unit), unit);
    sums[i % 4] += (double)e * e;
  }
  return sums[0] + sums[2] + (sums[1] + sums[3]);
}

static uint8_t bw_better(const bw_format *format, const float *x, size_t n, uint8_t found, uint8_t other, double *least) {
  double error = bw_error(format, x, n, other);
  if (!(error < *least)) return found;
  *least = error;
  return other;
}

static int bw_clamp_scale(const bw_format *format, int s) {
  if (s > 127 - format->top_exponent) s = 127 - format->top_exponent;
  return s < -127 ? -127 : s;
}

static uint8_t bw_power_scale(const bw_format *format, const float *x, size_t n, float most) {
  int exponent, exact, up = 0;
  double m = most;
  if (most == 0) return 0;
  exponent = bw_exponent(m);
  exact = exponent - format->top_exponent;
  if (format->rule == BW_CEIL) up = m != bw_power(exponent);
  if (format->rule == BW_RCEIL) up = m > format->top * bw_power(exact);
  if (format->rule == BW_EVEN) up = m >= (2 - bw_power(-(format->round_bits + 1))) * bw_power(exponent);
  if (format->rule == BW_MSE) {
    uint8_t first = (uint8_t)(bw_clamp_scale(format, exact) + 127);
    double least = bw_error(format, x, n, first);
    uint8_t found = bw_better(format, x, n, first, (uint8_t)(bw_clamp_scale(format, exact + 1) + 127), &least);
    return bw_better(format, x, n, found, (uint8_t)(bw_clamp_scale(format, exact - 1) + 127), &least);
  }
  return (uint8_t)(bw_clamp_scale(format, exact + up) + 127);
}

static uint8_t bw_e4m3_scale(const bw_format *format, const float *x, size_t n, float most) {
  float exact = format->divisor * (most / 6.0f);
  int code = exact > 448 ? 0x7e : bw_float_code(exact, 3, 7, 0x7e);
  double value = bw_float_value(code, 3, 7);
  if (format->rule == BW_FLOOR && value > exact) code--;
  if ((format->rule == BW_CEIL || format->rule == BW_RCEIL) && value < exact && code < 0x7e) code++;
  if (code == 0) code = 0x20;
  if (format->rule == BW_MSE) {
    uint8_t found = (uint8_t)code;
    double least = bw_error(format, x, n, found);
    int other, end = code + 8 < 0x7e ? code + 8 : 0x7e;
    for (other = code > 9 ? code - 8 : 1; other <= end; other++) found = bw_better(format, x, n, found, (uint8_t)other, &least);
    return found;
  }
  return (uint8_t)code;
}

/* A row of values to packed codes and scale bytes. A block with NaN or infinity gets the NaN scale and codes 0. */
void bw_quantize_row(const bw_format *format, const float *x, size_t cols, uint8_t *codes, uint8_t *scales) {
  size_t start, i;
  memset(codes, 0, bw_row_bytes(format, cols));
  for (start = 0; start < cols; start += format->block) {
    size_t n = cols - start < format->block ? cols - start : format->block;
    uint32_t bits = 0;
    float most, unit;
    for (i = 0; i < n; i++)
      if ((bw_bits(x[start + i]) & 0x7fffffff) > bits) bits = bw_bits(x[start + i]) & 0x7fffffff;
    if (bits >= 0x7f800000) {
      *scales++ = format->kind == BW_NVFP4 ? 0x7f : 255;
      continue;
    }
    memcpy(&most, &bits, sizeof most);
    *scales = format->kind == BW_NVFP4 ? bw_e4m3_scale(format, x + start, n, most) : bw_power_scale(format, x + start, n, most);
    unit = bw_unit(format, *scales++);
    for (i = 0; i < n; i++) bw_put(format, codes, start + i, bw_encode(format, x[start + i], unit));
  }
}

/* Values of a packed row. */
void bw_dequantize_row(const bw_format *format, const uint8_t *codes, const uint8_t *scales, size_t cols, float *out) {
  size_t i;
  for (i = 0; i < cols; i++) out[i] = bw_value(format, bw_code(format, codes, i), bw_unit(format, scales[i / format->block]));
}

static int32_t bw_block_sum(const bw_format *format, const uint8_t *a, const uint8_t *b, size_t start, size_t n) {
  int32_t sum = 0;
  size_t i;
  if (format->bits == 8) {
    for (i = start; i < start + n; i++) sum += ((a[i] ^ 0x80) - 0x80) * ((b[i] ^ 0x80) - 0x80);
    return sum;
  }
  for (i = start; i < start + n; i++) sum += bw_code(format, a, i) * bw_code(format, b, i);
  return sum;
}

/* Product of two packed rows of one format: mantissas of at most 8 bits by exact sums of integers a block, all else in f32. */
float bw_dot_rows(const bw_format *format, const uint8_t *a, const uint8_t *a_scales, const uint8_t *b, const uint8_t *b_scales, size_t cols) {
  size_t start, i;
  if (format->kind == BW_INT && format->bits <= 8) {
    float total = 0;
    for (start = 0; start < cols; start += format->block) {
      size_t n = cols - start < format->block ? cols - start : format->block;
      float unit = bw_unit(format, *a_scales++) * bw_unit(format, *b_scales++);
      float scaled = (float)bw_block_sum(format, a, b, start, n) * unit;
      total = total + scaled;
    }
    return total;
  }
  {
    float sums[4] = {0, 0, 0, 0};
    for (i = 0; i < cols; i++) {
      float x = bw_value(format, bw_code(format, a, i), bw_unit(format, a_scales[i / format->block]));
      float y = bw_value(format, bw_code(format, b, i), bw_unit(format, b_scales[i / format->block]));
      float product = x * y;
      sums[i % 4] = sums[i % 4] + product;
    }
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
  }
}

/* C[m, n] = A[m, k] B[n, k]^T, exact for k up to 131,071. */
void bw_gemm_int8(const int8_t *a, const int8_t *b, size_t m, size_t n, size_t k, int32_t *c) {
  size_t i, j, l;
  for (i = 0; i < m; i++) {
    for (j = 0; j < n; j++) {
      int32_t sum = 0;
      for (l = 0; l < k; l++) sum += a[i * k + l] * b[j * k + l];
      c[i * n + j] = sum;
    }
  }
}

#ifdef BW_SELFTEST
#include <stdio.h>
#include <stdlib.h>
#include "sha256.h"
#include "blocks_selftest.h"

typedef struct {
  const char *file;
  long long offset, length;
} bw_place;

static uint8_t *bw_read(const char *folder, bw_place place) {
  size_t room = strlen(folder) + strlen(place.file) + 2, length = (size_t)place.length;
  char *path = malloc(room);
  uint8_t *bytes = malloc(length + 1);
  FILE *file;
  if (path == NULL || bytes == NULL) exit(2);
  snprintf(path, room, "%s/%s", folder, place.file);
  file = fopen(path, "rb");
  if (file == NULL || fseek(file, (long)place.offset, SEEK_SET) != 0 || fread(bytes, 1, length, file) != length) {
    fprintf(stderr, "cannot read %lld bytes at %lld of %s\n", place.length, place.offset, path);
    exit(2);
  }
  fclose(file);
  free(path);
  return bytes;
}

static int bw_check(const char *what, const float *values, size_t count, const char *expected) {
  char found[65];
  uint8_t *bytes = malloc(4 * count + 1);
  size_t i;
  int differ;
  if (bytes == NULL) return 1;
  for (i = 0; i < count; i++) {
    uint32_t bits = bw_bits(values[i]);
    bytes[4 * i] = (uint8_t)bits;
    bytes[4 * i + 1] = (uint8_t)(bits >> 8);
    bytes[4 * i + 2] = (uint8_t)(bits >> 16);
    bytes[4 * i + 3] = (uint8_t)(bits >> 24);
  }
  bw_sha256(bytes, 4 * count, found);
  free(bytes);
  differ = strcmp(found, expected) != 0;
  if (differ) printf("%s of %s: sha256 is %s, must be %s\n", what, BW_TEST_MODULE, found, expected);
  return differ;
}

int main(int argc, char **argv) {
  static const bw_place codes_at = BW_TEST_CODES, scales_at = BW_TEST_SCALES, divisor_at = BW_TEST_DIVISOR;
  const char *folder = argc > 1 ? argv[1] : "..";
  size_t rows = BW_TEST_ROWS, cols = BW_TEST_COLS, r;
  uint8_t *codes, *scales;
  float divisor = 1, *values, *products;
  bw_format format;
  size_t row_bytes, row_blocks;
  int wrong;
  codes = bw_read(folder, codes_at);
  scales = bw_read(folder, scales_at);
  if (divisor_at.length == 4) {
    uint8_t *bytes = bw_read(folder, divisor_at);
    uint32_t bits = (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    memcpy(&divisor, &bits, sizeof divisor);
    free(bytes);
  }
  if (bw_format_named(&format, BW_TEST_FORMAT, BW_TEST_BLOCK, BW_FLOOR, divisor) != 0) return 2;
  row_bytes = bw_row_bytes(&format, cols);
  row_blocks = bw_row_blocks(&format, cols);
  if ((unsigned long long)codes_at.length != rows * row_bytes || (unsigned long long)scales_at.length != rows * row_blocks) return 2;
  values = malloc(rows * cols * sizeof *values);
  products = malloc(rows * sizeof *products);
  if (values == NULL || products == NULL) return 2;
  for (r = 0; r < rows; r++) {
    bw_dequantize_row(&format, codes + r * row_bytes, scales + r * row_blocks, cols, values + r * cols);
    products[r] = bw_dot_rows(&format, codes, scales, codes + r * row_bytes, scales + r * row_blocks, cols);
  }
  wrong = bw_check("values", values, rows * cols, BW_TEST_VALUES) + bw_check("products", products, rows, BW_TEST_PRODUCTS);
  free(codes);
  free(scales);
  free(values);
  free(products);
  if (wrong == 0) printf("ok: %s, %s in blocks of %lu, %lu x %lu\n", BW_TEST_MODULE, BW_TEST_FORMAT, (unsigned long)BW_TEST_BLOCK, (unsigned long)rows, (unsigned long)cols);
  return wrong != 0;
}
#endif
