// A route's record: margin, temperature, groups or deciding scores, and who answers.
#include <limits>

#include "step_reader.h"

namespace whit {

void read_route(const Data &data, const Record &record, const Shape &source, Step &step) {
    step.deciding = record.columns;
    expect(step.deciding <= 255, "route has too many deciding scores");
    expect(source.rank == 1 && source.axes[0] > step.deciding + 1,
           "route needs the scores of 2 classes");
    step.shape.axes[0] = source.axes[0] - step.deciding;
    const size_t classes = step.shape.axes[0];
    expect(record.operand <= kScalar, "route has an unknown number of temperatures");
    const std::vector<float> floats = data.floats(record.first, 1 + record.operand);
    step.low = floats[0], step.high = record.operand == kScalar ? floats[1] : 1.0f;
    expect(step.high > 0 && step.high <= std::numeric_limits<float>::max(),
           "route has an impossible temperature");
    step.members = record.rows;
    expect(step.members <= 255, "route has too many members");
    size_t at = record.second;
    const auto next = [&] { return *data.at(at++, 1, 1); };
    step.groups = next();
    const size_t known = next();
    expect(known <= classes, "route groups more classes than there are");
    expect(!step.deciding || !(step.groups || known),
           "route has groups and deciding scores; one of them chooses");
    step.group_of.assign(classes, 255);
    for (size_t label = 0; label < known; ++label) {
        step.group_of[label] = next();
        expect(step.group_of[label] == 255 || step.group_of[label] < step.groups,
               "route names a group that does not exist");
    }
    const size_t chosen = step.groups ? step.groups : step.deciding ? step.deciding : 1;
    for (size_t i = 0; i < 1 + chosen; ++i) {
        std::vector<uint8_t> strategy(next());
        expect(!strategy.empty(), "route asks no network");
        for (uint8_t &number : strategy) {
            number = next();
            expect(number <= step.members, "route asks a network that does not exist");
        }
        step.strategies.push_back(strategy);
    }
}

}  // namespace whit
