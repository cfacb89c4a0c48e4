// What Verilator's FST writer needs of zlib, so that traces need no system library: streams of
// stored blocks (RFC 1950, RFC 1951 section 3.2.4), which every inflater reads.
#pragma once

#include <cstdint>
#include <cstring>

using Bytef = unsigned char;
using uLong = unsigned long;
using uLongf = unsigned long;

constexpr int Z_OK = 0;
constexpr int Z_BUF_ERROR = -5;

inline uLong compressBound(uLong size) { return size + (size / 65535 + 1) * 5 + 6; }

inline int compress2(Bytef *target, uLongf *capacity, const Bytef *source, uLong size, int) {
    if (*capacity < compressBound(size)) return Z_BUF_ERROR;
    Bytef *out = target;
    *out++ = 0x78;
    *out++ = 0x01;
    uint32_t low = 1, high = 0;
    uLong done = 0;
    do {
        const uLong rest = size - done;
        const uint16_t part = static_cast<uint16_t>(rest < 65535 ? rest : 65535);
        *out++ = part == rest ? 1 : 0;
        *out++ = static_cast<Bytef>(part);
        *out++ = static_cast<Bytef>(part >> 8);
        *out++ = static_cast<Bytef>(~part);
        *out++ = static_cast<Bytef>(static_cast<uint16_t>(~part) >> 8);
        if (part) std::memcpy(out, source + done, part);
        for (uLong i = done; i < done + part; ++i) {
            low = (low + source[i]) % 65521;
            high = (high + low) % 65521;
        }
        out += part;
        done += part;
    } while (done < size);
    for (const uint32_t half : {high, low}) {
        *out++ = static_cast<Bytef>(half >> 8);
        *out++ = static_cast<Bytef>(half);
    }
    *capacity = static_cast<uLongf>(out - target);
    return Z_OK;
}
