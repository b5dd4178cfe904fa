// A folder of JPEG files, each answered: one line for each object found.
//
//	./folder -server 127.0.0.1:8001 -model detector pictures/
//
// Delivery "every": no frame is replaced by a newer one, and the server stops reading when it has enough. A frame
// without an answer (the server went away, or had no room) is sent again on the next call, under its old number.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "example.com/folder/forebayv1"
)

const (
	mostTries = 6                      // calls in a row without a single answer
	pause     = 250 * time.Millisecond // before the second of them, twice as long before each later one
)

// folder sends the files of a folder to a model.
type folder struct {
	client pb.FrameInferenceClient
	model  string
	files  []string
	counts map[string]int // results so far, by status
}

// ended is the end of a call: the numbers of the frames that need another one, and the server's advice when.
type ended struct {
	numbers []uint64
	pause   time.Duration
	err     error
}

// sendAll sends every file until it has its answer.
func (f *folder) sendAll(ctx context.Context) error {
	numbers := make([]uint64, len(f.files))
	for index := range numbers {
		numbers[index] = uint64(index) + 1
	}
	for tries := 0; len(numbers) > 0; {
		end := f.oneCall(ctx, numbers)
		if end.err != nil && !isTemporary(end.err) {
			return end.err
		}
		if tries++; len(end.numbers) < len(numbers) {
			tries = 0
		}
		if numbers = end.numbers; tries == mostTries {
			if end.err != nil {
				return end.err
			}
			return errors.New("the server had no room for a single frame")
		}
		if wait := pause << tries; len(numbers) > 0 {
			if wait < end.pause {
				wait = end.pause
			}
			time.Sleep(wait)
		}
	}
	return nil
}

// oneCall sends the frames with these numbers on one call and prints their results.
func (f *folder) oneCall(ctx context.Context, numbers []uint64) ended {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the sending as well
	stream, err := f.client.Stream(ctx)
	if err != nil {
		return ended{numbers: numbers, err: err}
	}
	var isLeaving atomic.Bool
	sending := make(chan error, 1)
	go func() { sending <- f.send(stream, numbers, &isLeaving) }()

	end := ended{}
	isAnswered := map[uint64]bool{}
	for end.err == nil {
		message, err := stream.Recv()
		if err != nil {
			end.err = err
		} else if message.GetReconnect() != nil {
			isLeaving.Store(true) // the server drains, or wants the stream elsewhere
		} else if result := message.GetResult(); result != nil {
			switch result.Status.Code {
			case pb.StatusCode_STATUS_OVERLOADED, pb.StatusCode_STATUS_CANCELLED: // not executed, and not the frame's fault
				isLeaving.Store(true)
				if advice := time.Duration(result.Status.RetryAfterMs) * time.Millisecond; advice > end.pause {
					end.pause = advice
				}
			default:
				isAnswered[result.Seq] = true
				f.print(result)
			}
		} // else: opened, heartbeat
	}
	cancel()
	if err := <-sending; err != nil {
		end.err = err // a file that cannot be read
	} else if end.err == io.EOF {
		end.err = nil
	}
	for _, number := range numbers {
		if !isAnswered[number] {
			end.numbers = append(end.numbers, number)
		}
	}
	return end
}

// send sends the frames, then half-closes: every frame sent before that is still answered.
func (f *folder) send(stream pb.FrameInference_StreamClient, numbers []uint64, isLeaving *atomic.Bool) error {
	defer stream.CloseSend()
	open := &pb.Open{
		Model:    f.model,
		StreamId: "go example",
		Encoding: pb.Encoding_ENCODING_JPEG,
		Delivery: pb.Delivery_DELIVERY_EVERY,
	}
	if numbers[0] > 1 { // earlier frames have their answers
		open.ResumeFrom = &numbers[0]
	}
	if stream.Send(&pb.ClientMessage{Message: &pb.ClientMessage_Open{Open: open}}) != nil {
		return nil // Recv says why
	}
	for _, number := range numbers {
		payload, err := os.ReadFile(f.files[number-1])
		if err != nil {
			return err
		}
		frame := &pb.Frame{Seq: number, Payload: payload}
		if isLeaving.Load() || stream.Send(&pb.ClientMessage{Message: &pb.ClientMessage_Frame{Frame: frame}}) != nil {
			return nil
		}
	}
	return nil
}

func (f *folder) print(result *pb.Result) {
	code := strings.TrimPrefix(result.Status.Code.String(), "STATUS_")
	f.counts[code]++
	start := fmt.Sprintf("frame %d (%s):", result.Seq, filepath.Base(f.files[result.Seq-1]))
	if code != "OK" {
		fmt.Printf("%s %s: %s\n", start, code, result.Status.Message)
	} else if len(result.Detections) == 0 {
		fmt.Println(start, "nothing")
	}
	for _, found := range result.Detections {
		box := found.BoxPixels
		fmt.Printf("%s %s %.2f at (%.0f, %.0f, %.0f, %.0f)\n",
			start, found.Label, found.Score, box.XMin, box.YMin, box.XMax, box.YMax)
	}
}

func isTemporary(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.ResourceExhausted
}

func main() {
	server := flag.String("server", "127.0.0.1:8001", "host:port")
	model := flag.String("model", "detector", "name in the server's model repository")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: folder [-server HOST:PORT] [-model NAME] FOLDER")
		os.Exit(2)
	}
	if err := run(*server, *model, flag.Arg(0)); err != nil {
		if known, isStatus := status.FromError(err); isStatus {
			err = errors.New(known.Message())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(server, model, path string) error {
	entries, err := os.ReadDir(path) // in the order of their names
	if err != nil {
		return err
	}
	var files []string
	for _, entry := range entries {
		if kind := strings.ToLower(filepath.Ext(entry.Name())); kind == ".jpg" || kind == ".jpeg" {
			files = append(files, filepath.Join(path, entry.Name()))
		}
	}
	if len(files) == 0 {
		return fmt.Errorf("%s has no .jpg or .jpeg files", path)
	}
	connection, err := connect(server)
	if err != nil {
		return err
	}
	defer connection.Close()
	f := &folder{client: pb.NewFrameInferenceClient(connection), model: model, files: files, counts: map[string]int{}}
	if err := f.sendAll(context.Background()); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d frames: %d OK\n", len(files), f.counts["OK"])
	if f.counts["OK"] < len(files) {
		return errors.New("some frames were not OK")
	}
	return nil
}
