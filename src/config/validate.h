// Rules that concern several keys at once; config/load.h declares the functions.
#pragma once

#include "config/load.h"
