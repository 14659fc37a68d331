#include "network.h"

#include <array>
#include <cstring>

#include "step_reader.h"

namespace whit {

namespace {

constexpr size_t kHeaderBytes = 40;

// CRC-32 of zlib, with the four bytes at `blank` taken as zero.
uint32_t checksum(const uint8_t *bytes, size_t size, size_t blank) {
    std::array<uint32_t, 256> table;
    for (uint32_t i = 0; i < 256; ++i) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; ++bit) c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
        table[i] = c;
    }
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < size; ++i) {
        const uint8_t byte = i >= blank && i < blank + 4 ? 0 : bytes[i];
        crc = table[(crc ^ byte) & 255] ^ crc >> 8;
    }
    return ~crc;
}

// The steps from `first` to `last` read values of their own scope only; a member opens a scope.
void check_scope(const std::vector<Step> &steps, size_t first, size_t last, size_t own,
                 size_t depth) {
    expect(depth <= 4, "subprograms lie more than 4 deep");
    std::vector<size_t> visible{own};
    const auto seen = [&](size_t value) {
        for (size_t known : visible)
            if (known == value) return true;
        return false;
    };
    std::vector<size_t> members;  // directly before the step at hand
    for (size_t index = first; index < last; ++index) {
        const Step &step = steps[index];
        if (step.kind == Kind::kMember) {
            expect(seen(step.source) && step.body > 0 && step.body < last - index,
                   "a member reads a foreign value or its body does not fit");
            check_scope(steps, index + 1, index + 1 + step.body, index + 1, depth + 1);
            members.push_back(index);
            index += step.body;
            continue;
        }
        const bool joins = step.kind == Kind::kAdd || step.kind == Kind::kMultiply ||
                           step.kind == Kind::kConcat || step.kind == Kind::kRoute;
        expect(seen(step.source) && (!joins || seen(step.other)),
               "a record reads a value that belongs to another part of the program");
        if (step.kind == Kind::kRoute) {
            expect(step.members == members.size(), "a route has other members than it names");
            for (size_t member : members) {
                expect(steps[member].source == step.other, "a member of a route reads another value");
                const Step &answer = steps[member + steps[member].body];
                const Shape &scores = step.shape;
                expect(answer.shape == scores, "a member of a route answers in another shape");
            }
        } else {
            expect(members.empty(), "members stand without their route");
        }
        members.clear();
        visible.push_back(index + 1);
    }
    expect(members.empty(), "members stand without their route");
}

// To version 1, whole numbers other than signs were floats.
bool read_as_float(uint8_t kind, Domain domain) {
    if (domain == Domain::kByte) return kind <= 7 || kind == 11;
    return domain == Domain::kInteger && (kind <= 2 || kind == 11);
}

}  // namespace

Network read_network(const uint8_t *file, size_t size) {
    expect(size >= 8 + kHeaderBytes, "the file is too short");
    const size_t text = word(file), start = 8 + text;
    expect(word(file + 4) == 0 && text <= 65536 && start + kHeaderBytes <= size,
           "the header does not fit the file");
    const uint8_t *program = file + start;
    expect(std::memcmp(program, "WHIT", 4) == 0, "not a .whit file");
    const uint16_t version = half_word(program + 4);
    expect(version >= 1 && version <= 3, "the file has a format version that is not known here");
    const size_t count = half_word(program + 6);
    expect(count <= 4096 && kHeaderBytes + count * kRecordBytes <= size - start,
           "the records do not fit the file");
    expect(checksum(file, size, start + 8) == word(program + 8),
           "the checksum does not match: the file is damaged");

    Network network;
    network.input.rank = program[12];
    expect(network.input.rank >= 1 && network.input.rank <= 4 && program[13] <= 2,
           "the program header holds an impossible input description");
    constexpr Domain kInputs[] = {Domain::kFloat, Domain::kByte, Domain::kInteger};
    network.input_domain = kInputs[program[13]];
    network.leading = half_word(program + 14) == 1;
    for (size_t axis = 0; axis < network.input.rank; ++axis)
        network.input.axes[axis] = word(program + 16 + 4 * axis);
    check_shape(network.input);

    const size_t begin = kHeaderBytes + count * kRecordBytes;
    const Data data(program + begin, size - start - begin);
    const auto shape = [&](size_t value) -> const Shape & {
        return value ? network.steps[value - 1].shape : network.input;
    };
    const auto domain = [&](size_t value) {
        return value ? network.steps[value - 1].domain : network.input_domain;
    };
    network.steps.reserve(2 * count);  // references to shapes stay valid
    for (size_t index = 0; index < count; ++index) {
        Record record(program + kHeaderBytes + index * kRecordBytes);
        expect(record.source <= index && record.other <= index,
               "a record reads a value that does not exist before it");
        expect(version != 2 || record.kind != 30 || !(record.operand || record.columns),
               "a record is beyond what version 2 knows");
        if (version == 1) {
            expect(record.kind <= 11 && record.format <= 6 && record.source == index,
                   "a record is beyond what version 1 knows");
            // Files of version 1 are chains; values count on with the steps put in here.
            record.source = static_cast<uint16_t>(network.steps.size()), record.other = 0;
            if (read_as_float(record.kind, domain(record.source))) {
                Step widen;
                widen.kind = Kind::kAffine, widen.source = record.source;
                widen.shape = shape(record.source);
                network.steps.push_back(widen);
                ++record.source;
            }
        }
        network.steps.push_back(read_step(data, record, shape(record.source),
                                          domain(record.source), shape(record.other),
                                          domain(record.other)));
    }
    check_scope(network.steps, 0, network.steps.size(), 0, 0);
    return network;
}

}  // namespace whit
