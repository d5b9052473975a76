// "--tokenizer bytes" or a tokenizer.json.
#pragma once

#include <memory>
#include <string>

#include "tokenizer/tokenizer.h"

namespace lh {

std::unique_ptr<Tokenizer> tokenizer_from_argument(const std::string& name);

}  // namespace lh
