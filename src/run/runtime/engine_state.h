// What an engine and its sessions are made of. Private to runtime.
#pragma once

#include <memory>
#include <vector>

#include "model/model.h"
#include "runtime/cpu_backend.h"
#include "runtime/engine.h"
#include "runtime/kv_pool.h"
#include "runtime/weight_store.h"

namespace sluice::runtime {

struct Engine::State {
  EngineOptions options;
  ThreadPool* pool = nullptr;
  std::shared_ptr<const io::Checkpoint> checkpoint;
  std::vector<std::string> digest_paths;
  ModelInfo info;
  ReadTrace reads;  // as recorded last
  MemoryNeed need;
  StepLimits limits;
  std::unique_ptr<WeightStore> weights;
  std::unique_ptr<StepBackend> backend;  // over weights
  CpuBackend* processor = nullptr;       // the same, where the processor computes
  std::unique_ptr<model::Model> model;   // over backend
  std::shared_ptr<KvPool> kv;            // from load() on
  std::shared_ptr<StatePool> states;     // likewise; null where the model is not recurrent
};

struct Session::State {
  std::shared_ptr<Engine> engine;
  KvSequence kv;
  StateSequence state;  // at kv's size
  // Those beyond kv's size have been taken back to a state before them, and are run again with the
  // next step.
  std::vector<uint32_t> tokens = {};
  std::vector<float> logits = {};  // of the last token run, where it was asked for
};

}  // namespace sluice::runtime
