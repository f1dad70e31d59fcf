/* crc32c.c - see crc32c.h. All values are bit-reflected: the lowest bit holds the highest power of x. */
#include "crc32c.h"

#include <string.h>

/* One slice: the checksums of the 256 bytes, each the XOR of the constants of its bits. */
#define BIT(byte, bit, value) ((((byte) >> (bit)) & 1u) ? (value) : 0u)
#define ENTRY(i, a, b, c, d, e, f, g, h)                                                       \
    (BIT(i, 7, a) ^ BIT(i, 6, b) ^ BIT(i, 5, c) ^ BIT(i, 4, d) ^ BIT(i, 3, e) ^ BIT(i, 2, f) ^ \
     BIT(i, 1, g) ^ BIT(i, 0, h))
#define ENTRIES_4(i, ...)                                                              \
    ENTRY((i), __VA_ARGS__), ENTRY((i) + 1, __VA_ARGS__), ENTRY((i) + 2, __VA_ARGS__), \
        ENTRY((i) + 3, __VA_ARGS__)
#define ENTRIES_16(i, ...)                                                                         \
    ENTRIES_4((i), __VA_ARGS__), ENTRIES_4((i) + 4, __VA_ARGS__), ENTRIES_4((i) + 8, __VA_ARGS__), \
        ENTRIES_4((i) + 12, __VA_ARGS__)
#define ENTRIES_64(i, ...)                                                                              \
    ENTRIES_16((i), __VA_ARGS__), ENTRIES_16((i) + 16, __VA_ARGS__), ENTRIES_16((i) + 32, __VA_ARGS__), \
        ENTRIES_16((i) + 48, __VA_ARGS__)
#define SLICE(...)                                                                             \
    {ENTRIES_64(0u, __VA_ARGS__), ENTRIES_64(64u, __VA_ARGS__), ENTRIES_64(128u, __VA_ARGS__), \
     ENTRIES_64(192u, __VA_ARGS__)}

/* SLICES[k] serves a byte that k more bytes follow. Read row after row, the 64 constants are the powers x^32
 * .. x^95 modulo the polynomial: each is the one before times x, next = (c >> 1) ^ (c & 1 ? 0x82F63B78 : 0).
 */
static const uint32_t SLICES[8][256] = {
    SLICE(0x82F63B78u, 0x417B1DBCu, 0x20BD8EDEu, 0x105EC76Fu, 0x8AD958CFu, 0xC79A971Fu, 0xE13B70F7u,
          0xF26B8303u),
    SLICE(0xFBC3FAF9u, 0xFF17C604u, 0x7F8BE302u, 0x3FC5F181u, 0x9D14C3B8u, 0x4E8A61DCu, 0x274530EEu,
          0x13A29877u),
    SLICE(0x8B277743u, 0xC76580D9u, 0xE144FB14u, 0x70A27D8Au, 0x38513EC5u, 0x9EDEA41Au, 0x4F6F520Du,
          0xA541927Eu),
    SLICE(0x52A0C93Fu, 0xABA65FE7u, 0xD725148Bu, 0xE964B13Du, 0xF64463E6u, 0x7B2231F3u, 0xBF672381u,
          0xDD45AAB8u),
    SLICE(0x6EA2D55Cu, 0x37516AAEu, 0x1BA8B557u, 0x8F2261D3u, 0xC5670B91u, 0xE045BEB0u, 0x7022DF58u,
          0x38116FACu),
    SLICE(0x1C08B7D6u, 0x0E045BEBu, 0x85F4168Du, 0xC00C303Eu, 0x6006181Fu, 0xB2F53777u, 0xDB8CA0C3u,
          0xEF306B19u),
    SLICE(0xF56E0EF4u, 0x7AB7077Au, 0x3D5B83BDu, 0x9C5BFAA6u, 0x4E2DFD53u, 0xA5E0C5D1u, 0xD0065990u,
          0x68032CC8u),
    SLICE(0x34019664u, 0x1A00CB32u, 0x0D006599u, 0x847609B4u, 0x423B04DAu, 0x211D826Du, 0x9278FA4Eu,
          0x493C7D27u),
};

/* Little-endian whatever the machine; compilers make one load of it. */
static inline uint32_t load_word(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

uint32_t sa_crc32c_portable(uint32_t crc, const void *data, size_t length) {
    const uint8_t *bytes = data;
    crc = ~crc;
    for (; length >= 8; bytes += 8, length -= 8) {
        uint32_t low = load_word(bytes) ^ crc;
        uint32_t high = load_word(bytes + 4);
        crc = SLICES[7][low & 0xFF] ^ SLICES[6][low >> 8 & 0xFF] ^ SLICES[5][low >> 16 & 0xFF] ^
              SLICES[4][low >> 24] ^ SLICES[3][high & 0xFF] ^ SLICES[2][high >> 8 & 0xFF] ^
              SLICES[1][high >> 16 & 0xFF] ^ SLICES[0][high >> 24];
    }
    for (; length > 0; bytes++, length--) {
        crc = SLICES[0][(crc ^ *bytes) & 0xFF] ^ crc >> 8;
    }
    return ~crc;
}

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

/* Bytes of one lane in a round of three; the long round saves shifts, the short one serves frames below 12
 * KiB. */
enum { LONG_LANE = 4096, SHORT_LANE = 128 };

/* SHIFT_n is x^(8 * n - 33) modulo the polynomial: multiplying by it, and reducing with the crc32 instruction
 * (which multiplies by x^32; the carry-less product of reflected values lends the last x), moves a checksum
 * over n bytes. */
#define SHIFT_4096 0x82F89C77u
#define SHIFT_8192 0x54A86326u
#define SHIFT_128 0x0D3B6092u
#define SHIFT_256 0xB9E02B86u
_Static_assert(LONG_LANE == 4096 && SHORT_LANE == 128, "the SHIFT constants belong to these lane lengths");

#define HARDWARE __attribute__((target("sse4.2,pclmul")))

HARDWARE static inline uint64_t load_long(const uint8_t *bytes) {
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

HARDWARE static inline uint64_t multiply(uint64_t crc, uint32_t power) {
    __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128((long long)power), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

/* Folds as many rounds of three lanes as fit into crc, and moves *bytes and *length past them. */
HARDWARE static inline uint64_t fold_rounds(uint64_t crc, const uint8_t **bytes, size_t *length, size_t lane,
                                            uint32_t shift_one, uint32_t shift_two) {
    while (*length >= 3 * lane) {
        const uint8_t *at = *bytes;
        uint64_t second = 0, third = 0;
        for (size_t i = 0; i < lane; i += 8) {
            crc = _mm_crc32_u64(crc, load_long(at + i));
            second = _mm_crc32_u64(second, load_long(at + lane + i));
            third = _mm_crc32_u64(third, load_long(at + 2 * lane + i));
        }
        crc = third ^ _mm_crc32_u64(0, multiply(crc, shift_two) ^ multiply(second, shift_one));
        *bytes += 3 * lane;
        *length -= 3 * lane;
    }
    return crc;
}

HARDWARE static uint32_t hardware(uint32_t start, const uint8_t *bytes, size_t length) {
    uint64_t crc = (uint32_t)~start;
    crc = fold_rounds(crc, &bytes, &length, LONG_LANE, SHIFT_4096, SHIFT_8192);
    crc = fold_rounds(crc, &bytes, &length, SHORT_LANE, SHIFT_128, SHIFT_256);
    for (; length >= 8; bytes += 8, length -= 8) {
        crc = _mm_crc32_u64(crc, load_long(bytes));
    }
    for (; length > 0; bytes++, length--) {
        crc = _mm_crc32_u8((uint32_t)crc, *bytes);
    }
    return ~(uint32_t)crc;
}

int sa_crc32c_is_hardware(void) {
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

uint32_t sa_crc32c(uint32_t crc, const void *data, size_t length) {
    return sa_crc32c_is_hardware() ? hardware(crc, data, length) : sa_crc32c_portable(crc, data, length);
}

#else

int sa_crc32c_is_hardware(void) { return 0; }

uint32_t sa_crc32c(uint32_t crc, const void *data, size_t length) {
    return sa_crc32c_portable(crc, data, length);
}

#endif
