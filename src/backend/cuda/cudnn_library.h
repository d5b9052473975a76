// cuDNN's functions, looked up when they are first needed: a program built with its headers starts on
// machines without it.
#pragma once

#include <cudnn.h>

#include <string>

namespace lh::cuda::cudnn {

struct Library {
  decltype(&::cudnnGetVersion) get_version;
  decltype(&::cudnnGetErrorString) get_error_string;
  decltype(&::cudnnGetLastErrorString) get_last_error_string;
  decltype(&::cudnnCreate) create;
  decltype(&::cudnnSetStream) set_stream;
  decltype(&::cudnnBackendCreateDescriptor) create_descriptor;
  decltype(&::cudnnBackendDestroyDescriptor) destroy_descriptor;
  decltype(&::cudnnBackendSetAttribute) set_attribute;
  decltype(&::cudnnBackendGetAttribute) get_attribute;
  decltype(&::cudnnBackendFinalize) finalize;
  decltype(&::cudnnBackendExecute) execute;
};

/// "" when libcudnn.so.9, version 9.8 or newer, can be loaded; else why not.
const std::string& unavailable_reason();
/// Throws Error with unavailable_reason().
const Library& library();
/// Throws with cuDNN's own words.
void check(cudnnStatus_t status, const char* what);

}  // namespace lh::cuda::cudnn
