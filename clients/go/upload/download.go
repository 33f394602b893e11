// Package upload has what callers of the generated code would each write again.
package upload

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	uploadv1 "example.com/upload-service/clients/go/upload/v1"
)

const (
	// Tries in a row that bring no byte.
	downloadTries = 8
	longestPause  = 5 * time.Second
)

// ErrChecksumMismatch says that the bytes that came are not those that were uploaded.
var ErrChecksumMismatch = errors.New("the bytes that came are not those that were uploaded")

// Download writes the bytes of a completed file to target and returns the file. A connection that breaks is opened again
// where it broke, for a while; at the end the SHA-256 is compared. What target got before an error stays there.
//
// Reason tells the service's errors apart: FILE_NOT_FOUND, FILE_NOT_COMPLETED, CONTENT_DELETED.
func Download(ctx context.Context, client uploadv1.UploadServiceClient, fileID string, target io.Writer) (*uploadv1.File, error) {
	digest := sha256.New()
	sink := &counted{target: io.MultiWriter(target, digest)}
	var file *uploadv1.File
	for failed := 0; ; failed++ {
		before := sink.bytes
		found, err := downloadFrom(ctx, client, fileID, sink)
		if found != nil {
			file = found
		}
		if err == nil {
			break
		}
		if sink.bytes > before {
			failed = 0
		}
		if sink.err != nil || failed+1 >= downloadTries || !passing(err) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(min(100*time.Millisecond<<failed, longestPause)):
		}
	}
	if sum := hex.EncodeToString(digest.Sum(nil)); sum != file.GetSha256() {
		return nil, fmt.Errorf("%w: %s, not %s", ErrChecksumMismatch, sum, file.GetSha256())
	}
	return file, nil
}

// downloadFrom goes on where the sink is, over one stream.
func downloadFrom(ctx context.Context, client uploadv1.UploadServiceClient, fileID string, sink *counted) (*uploadv1.File, error) {
	ctx, done := context.WithCancel(ctx)
	defer done()
	stream, err := client.DownloadFile(ctx, &uploadv1.DownloadFileRequest{FileId: fileID, Offset: sink.bytes})
	if err != nil {
		return nil, err
	}
	var file *uploadv1.File
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return file, nil
		}
		if err != nil {
			return file, err
		}
		if first := message.GetFile(); first != nil {
			file = first
		} else if _, err := sink.Write(message.GetData()); err != nil {
			return file, err
		}
	}
}

// Reason returns the service's word for what went wrong, such as FILE_NOT_FOUND; empty for what is none of its errors.
func Reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "upload.v1" {
			return info.Reason
		}
	}
	return ""
}

// passing tells whether another try may do better.
func passing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable:
		return true
	case codes.ResourceExhausted:
		return Reason(err) == "OVERLOADED" || Reason(err) == "RATE_EXCEEDED"
	case codes.Internal:
		// A connection that breaks; the service's own failures have a reason.
		return Reason(err) == ""
	}
	return false
}

// counted knows how much came, and whether its target failed.
type counted struct {
	target io.Writer
	bytes  int64
	err    error
}

func (c *counted) Write(data []byte) (int, error) {
	count, err := c.target.Write(data)
	c.bytes += int64(count)
	c.err = err
	return count, err
}
