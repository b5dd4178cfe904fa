// A folder of JPEG files, each answered: one line for each object found.
//
//     ./folder pictures/ 127.0.0.1:8001 detector
//
// Delivery "every": no frame is replaced by a newer one, and the server stops reading when it has enough. A frame without
// an answer (the server went away, or had no room) is sent again on the next call, under its old number.

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "forebay/v1/frames.grpc.pb.h"

namespace {

namespace fs = std::filesystem;
namespace pb = forebay::v1;
using Numbers = std::set<std::uint64_t>;  // of frames: that of the file in the list, from 1
using std::chrono::milliseconds;

constexpr int kMostTries = 6;           // calls in a row without a single answer
constexpr milliseconds kPause{250};     // before the second of them, twice as long before each later one

// The end of a call: the frames that need another one, and the server's advice when.
struct Ended {
  Numbers numbers;
  milliseconds pause{0};
  grpc::Status status;
};

class Folder {
 public:
  Folder(std::shared_ptr<grpc::Channel> channel, std::string model, std::vector<fs::path> files)
      : stub_(pb::FrameInference::NewStub(channel)), model_(std::move(model)), files_(std::move(files)) {}

  // Sends every file until it has its answer. Returns the status of the call that could not be mended, or OK.
  grpc::Status SendAll() {
    Numbers numbers;
    for (std::size_t index = 0; index < files_.size(); ++index) numbers.insert(index + 1);
    int tries = 0;
    while (!numbers.empty()) {
      Ended end = OneCall(numbers);
      if (!end.status.ok() && !IsTemporary(end.status)) return end.status;
      tries = end.numbers.size() < numbers.size() ? 0 : tries + 1;
      numbers = std::move(end.numbers);
      if (tries == kMostTries) {
        if (!end.status.ok()) return end.status;
        return {grpc::StatusCode::RESOURCE_EXHAUSTED, "the server had no room for a single frame"};
      }
      if (!numbers.empty()) std::this_thread::sleep_for(std::max(end.pause, kPause * (1 << tries)));
    }
    std::fprintf(stderr, "%zu frames: %d OK\n", files_.size(), counts_["OK"]);
    return grpc::Status::OK;
  }

  bool AllOk() { return counts_["OK"] == static_cast<int>(files_.size()); }

 private:
  Ended OneCall(const Numbers& numbers) {
    Ended end;
    end.numbers = numbers;
    grpc::ClientContext context;
    auto stream = stub_->Stream(&context);
    std::atomic<bool> is_leaving{false};
    std::thread sending([&] { Send(*stream, numbers, is_leaving); });

    pb::ServerMessage message;
    while (stream->Read(&message)) {
      if (message.has_reconnect()) {
        is_leaving = true;  // the server drains, or wants the stream elsewhere
      } else if (message.has_result()) {
        const pb::Status& status = message.result().status();
        if (status.code() == pb::STATUS_OVERLOADED || status.code() == pb::STATUS_CANCELLED) {
          is_leaving = true;  // not executed, and not the frame's fault
          end.pause = std::max(end.pause, milliseconds(status.retry_after_ms()));
        } else {
          end.numbers.erase(message.result().seq());
          Print(message.result());
        }
      }  // else: opened, heartbeat
    }
    sending.join();  // its next write has failed, or it has half-closed
    end.status = stream->Finish();
    return end;
  }

  // Sends the frames, then half-closes: every frame sent before that is still answered.
  void Send(grpc::ClientReaderWriter<pb::ClientMessage, pb::ServerMessage>& stream, const Numbers& numbers,
            const std::atomic<bool>& is_leaving) {
    pb::ClientMessage message;
    pb::Open& open = *message.mutable_open();
    open.set_model(model_);
    open.set_stream_id("c++ example");
    open.set_encoding(pb::ENCODING_JPEG);
    open.set_delivery(pb::DELIVERY_EVERY);
    if (*numbers.begin() > 1) open.set_resume_from(*numbers.begin());  // earlier frames have their answers
    bool can_go_on = stream.Write(message);  // false: the call has ended, and Finish says why
    for (auto number = numbers.begin(); can_go_on && number != numbers.end() && !is_leaving; ++number) {
      std::ifstream file(files_[*number - 1], std::ios::binary);
      pb::Frame& frame = *message.mutable_frame();
      frame.set_seq(*number);
      frame.mutable_payload()->assign(std::istreambuf_iterator<char>(file), {});
      can_go_on = stream.Write(message);
    }
    stream.WritesDone();
  }

  void Print(const pb::Result& result) {
    const std::string code = pb::StatusCode_Name(result.status().code()).substr(sizeof("STATUS_") - 1);
    ++counts_[code];
    const std::string start =
        "frame " + std::to_string(result.seq()) + " (" + files_[result.seq() - 1].filename().string() + "):";
    if (code != "OK") {
      std::printf("%s %s: %s\n", start.c_str(), code.c_str(), result.status().message().c_str());
    } else if (result.detections().empty()) {
      std::printf("%s nothing\n", start.c_str());
    }
    for (const pb::Detection& found : result.detections()) {
      const pb::Box& box = found.box_pixels();
      std::printf("%s %s %.2f at (%.0f, %.0f, %.0f, %.0f)\n", start.c_str(), found.label().c_str(), found.score(),
                  box.x_min(), box.y_min(), box.x_max(), box.y_max());
    }
    std::fflush(stdout);
  }

  static bool IsTemporary(const grpc::Status& status) {
    return status.error_code() == grpc::StatusCode::UNAVAILABLE ||
           status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED;
  }

  std::unique_ptr<pb::FrameInference::Stub> stub_;
  const std::string model_;
  const std::vector<fs::path> files_;
  std::map<std::string, int> counts_;  // results so far, by status
};

}  // namespace

int main(int count, char** words) {
  if (count < 2) {
    std::fprintf(stderr, "usage: folder FOLDER [HOST:PORT [MODEL]]\n");
    return 2;
  }
  const std::string server = count > 2 ? words[2] : "127.0.0.1:8001";
  const std::string model = count > 3 ? words[3] : "detector";
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(words[1], error)) {
    const std::string kind = entry.path().extension().string();
    if (kind == ".jpg" || kind == ".jpeg") files.push_back(entry.path());
  }
  if (error) {
    std::fprintf(stderr, "%s: %s\n", words[1], error.message().c_str());
    return 1;
  }
  if (files.empty()) {
    std::fprintf(stderr, "%s has no .jpg or .jpeg files\n", words[1]);
    return 1;
  }
  std::sort(files.begin(), files.end());
  // With TLS: grpc::SslCredentials({.pem_root_certs = ...}).
  Folder folder(grpc::CreateChannel(server, grpc::InsecureChannelCredentials()), model, files);
  const grpc::Status status = folder.SendAll();
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.error_message().c_str());
    return 1;
  }
  return folder.AllOk() ? 0 : 1;
}
