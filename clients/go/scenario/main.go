// The scenario that every client of the service plays, reported in JSON lines: announce, upload half, watch, cancel, see
// it on the watch, cancel again, unknown id. tests/clients compares the reports.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	uploadv1 "example.com/upload-service/clients/go/upload/v1"
)

const (
	size   = 4 << 20
	chunk  = 256 << 10
	reason = "only a demonstration"
)

func main() {
	ctx, done := context.WithTimeout(context.Background(), 60*time.Second)
	defer done()
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		defer conn.Close()
		err = play(ctx, uploadv1.NewUploadServiceClient(conn))
	}
	if err != nil {
		log.Fatal(err)
	}
}

func play(ctx context.Context, client uploadv1.UploadServiceClient) error {
	initiated, err := client.InitiateUpload(ctx, &uploadv1.InitiateUploadRequest{Filename: "matrix.bin", SizeBytes: size})
	if err != nil {
		return err
	}
	file := initiated.File
	say("initiate", "file_id", file.FileId, "filename", file.Filename, "size_bytes", file.SizeBytes)

	upload, err := client.UploadFile(ctx)
	if err != nil {
		return err
	}
	if err := sendHalf(upload, file.FileId); err != nil {
		return err
	}
	watch, err := client.WatchStatus(ctx, &uploadv1.WatchStatusRequest{FileIds: []string{file.FileId}, UntilFinal: true})
	if err != nil {
		return err
	}
	first, err := watch.Recv()
	if err != nil {
		return err
	}
	cancel := &uploadv1.CancelFileRequest{FileId: file.FileId, Reason: reason, RequestId: file.FileId}
	cancelled, err := client.CancelFile(ctx, cancel)
	if err != nil {
		return err
	}
	say("cancel", "result", "cancelled")
	if err := hearStop(upload); err != nil {
		return err
	}
	if err := watchToEnd(watch, first.GetFile()); err != nil {
		return err
	}
	again, err := client.CancelFile(ctx, cancel)
	if err != nil {
		return err
	}
	_, refused := client.CancelFile(ctx, &uploadv1.CancelFileRequest{FileId: file.FileId})
	say("cancel again", "same_request", sameAnswer(proto.Equal(cancelled, again)), "new_request", outcome(refused))
	_, unknown := client.CancelFile(ctx, &uploadv1.CancelFileRequest{FileId: "no-such-file"})
	say("unknown", "reason", info(unknown).GetReason())
	return nil
}

type uploadStream = grpc.BidiStreamingClient[uploadv1.UploadFileRequest, uploadv1.UploadFileResponse]

// sendHalf sends half of the file and waits until it is durable.
func sendHalf(upload uploadStream, fileID string) error {
	header := &uploadv1.UploadHeader{FileId: fileID}
	if err := upload.Send(&uploadv1.UploadFileRequest{Message: &uploadv1.UploadFileRequest_Header{Header: header}}); err != nil {
		return err
	}
	for range size / 2 / chunk {
		data := &uploadv1.UploadFileRequest_Data{Data: make([]byte, chunk)}
		if err := upload.Send(&uploadv1.UploadFileRequest{Message: data}); err != nil {
			return err
		}
	}
	for {
		response, err := upload.Recv()
		if err != nil {
			return err
		}
		if durable := response.GetProgress().GetBytesReceived(); durable == size/2 {
			say("half", "bytes_received", durable)
			return nil
		}
	}
}

func hearStop(upload uploadStream) error {
	by := ""
	for {
		response, err := upload.Recv()
		if err != nil {
			say("upload", "reason", info(err).GetReason(), "by", by)
			return nil
		}
		if stopped := response.GetStopped(); stopped != nil {
			by = stopped.CancelledBy
			if err := upload.CloseSend(); err != nil {
				return err
			}
		}
	}
}

func watchToEnd(watch grpc.ServerStreamingClient[uploadv1.WatchStatusResponse], first *uploadv1.File) error {
	statuses := []string{word(first)}
	for {
		message, err := watch.Recv()
		if errors.Is(err, io.EOF) {
			say("watch", "statuses", statuses)
			return nil
		}
		if err != nil {
			return err
		}
		if file := message.GetFile(); file != nil {
			statuses = append(statuses, word(file))
		}
	}
}

func word(file *uploadv1.File) string {
	return strings.ToLower(strings.TrimPrefix(file.GetStatus().String(), "UPLOAD_STATUS_"))
}

func sameAnswer(same bool) string {
	if same {
		return "the same answer"
	}
	return "another answer"
}

// outcome is what a client tells of a refused cancel.
func outcome(err error) string {
	if found := info(err); found.GetReason() == "FILE_NOT_CANCELLABLE" {
		return "already " + found.Metadata["status"]
	}
	return fmt.Sprint(err)
}

func info(err error) *errdetails.ErrorInfo {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	return nil
}

func say(step string, pairs ...any) {
	line := map[string]any{"step": step}
	for at := 0; at < len(pairs); at += 2 {
		line[pairs[at].(string)] = pairs[at+1]
	}
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		log.Fatal(err)
	}
}
