// How long idle threads spin before they sleep.
#pragma once

namespace lh {

/// OpenMP's threads wait for the next parallel loop by spinning, by default for milliseconds. When
/// another program takes a core, the loop's slowest thread waits for the scheduler while the others
/// spin in its way: a step of many short loops then takes many times longer (50 times, measured on
/// two cores with one busy). Spinning for tens of microseconds costs a free machine nothing. libgomp
/// reads the setting before main(), so this starts the program again with it, once; call it first
/// in main(). Does nothing where GOMP_SPINCOUNT or OMP_WAIT_POLICY is set already.
void start_again_with_brief_waits(char** argv);

}  // namespace lh
