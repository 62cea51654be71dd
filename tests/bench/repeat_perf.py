"""A perf.data whose samples come N times, each time later: repeat_perf.py SOURCE TARGET N.

The format is tools/perf/Documentation/perf.data-file-format.txt's: a header, one section of records, and behind it a table of
the other sections. Only the place of that table's sections and the length of the data change.
"""

import struct
import sys

HEADER_FLAGS, HEADER_END = 72, 104
DATA_SIZE = 48
SAMPLE = 9
# What a sample begins with, by the bits of its type that ask for it: identifier, address, thread, then the time.
BEFORE_TIME = (1 << 16, 1 << 0, 1 << 1)


def main(source, target, times):
    whole = bytearray(open(source, "rb").read())
    attributes, _, data, size = struct.unpack_from("<QQQQ", whole, 24)
    sample_type = struct.unpack_from("<Q", whole, attributes + 24)[0]
    time_at = 8 + 8 * sum(1 for bit in BEFORE_TIME if sample_type & bit)
    samples, stamps, at = bytearray(), [], data
    while at < data + size:
        kind, _, length = struct.unpack_from("<IHH", whole, at)
        if kind == SAMPLE:
            stamps.append(len(samples) + time_at)
            samples += whole[at : at + length]
        at += length
    first = [struct.unpack_from("<Q", samples, stamp)[0] for stamp in stamps]
    span = max(first) - min(first) + 1
    added = len(samples) * (times - 1)
    struct.pack_into("<Q", whole, DATA_SIZE, size + added)
    sections = sum(bin(byte).count("1") for byte in whole[HEADER_FLAGS:HEADER_END])
    for index in range(sections):
        place = data + size + 16 * index
        struct.pack_into("<Q", whole, place, struct.unpack_from("<Q", whole, place)[0] + added)
    with open(target, "wb") as out:
        out.write(whole[: data + size])
        for turn in range(1, times):
            for stamp, time in zip(stamps, first):
                struct.pack_into("<Q", samples, stamp, time + turn * span)
            out.write(samples)
        out.write(whole[data + size :])
    print(len(stamps) * times)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
