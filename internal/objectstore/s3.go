package objectstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// S3Options say which bucket of which S3, and how to reach it.
type S3Options struct {
	// Endpoint as in https://host:port; the bucket is addressed by path.
	Endpoint, Region, Bucket string
	// Root is the folder in the bucket that holds blobs and repositories, with a final "/"; empty is the whole bucket.
	Root                 string
	AccessKey, SecretKey string
	// CAFile holds certificates to trust besides the system's.
	CAFile string
	// Patience is for how long one operation goes on trying; 0 is DefaultPatience.
	Patience time.Duration
	// PageSize is how many objects one listing asks for; 0 is as many as the store gives (1000).
	PageSize int
}

// S3 is a bucket of S3, or of what speaks like it: Ceph's RADOS Gateway, MinIO.
type S3 struct {
	o        S3Options
	client   *s3.Client
	patience patience
	buffers  *buffers
}

var _ Store = (*S3)(nil)

// NewS3 makes a store of a bucket. Nothing is asked of S3 yet: errors are those of the options.
func NewS3(_ context.Context, o S3Options) (*S3, error) {
	if o.Endpoint == "" || o.Bucket == "" || o.AccessKey == "" || o.SecretKey == "" {
		return nil, fmt.Errorf("s3 needs an endpoint, a bucket, an access key and a secret key: %w", errInvalid)
	}
	client, err := newClient(o.CAFile)
	if err != nil {
		return nil, err
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	if o.PageSize == 0 {
		o.PageSize = 1000
	}
	return &S3{o: o, patience: patience(o.Patience), buffers: newBuffers(), client: s3.New(s3.Options{
		BaseEndpoint: aws.String(o.Endpoint),
		Region:       o.Region,
		UsePathStyle: true,
		Credentials:  aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider(o.AccessKey, o.SecretKey, "")),
		HTTPClient:   client,
		// We try again ourselves, in one manner for all stores.
		Retryer: aws.NopRetryer{},
		// RGW before 18 does not understand checksums that trail the body. Content-MD5 does what we need.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		// A body is signed by its Content-MD5, which is among the signed headers: no second pass over it with SHA-256, here and at the store.
		APIOptions: []func(*middleware.Stack) error{v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware},
		// No "100 Continue" for a body that we have in memory.
		ContinueHeaderThresholdBytes:              -1,
		DisableLogOutputChecksumValidationSkipped: true,
	})}, nil
}

// String implements Store.
func (s *S3) String() string { return "s3 " + s.o.Bucket + "/" + s.o.Root }

// try makes attempts, whose errors it translates.
func (s *S3) try(ctx context.Context, op, key string, attempt func() error) error {
	return s.patience.try(ctx, func() error { return s.translated(ctx, op, key, attempt()) })
}

func (s *S3) translated(ctx context.Context, op, key string, err error) error {
	if err == nil {
		return nil
	}
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) && answer.HTTPStatusCode() != 0 { // 0 when there was no answer
		status := &StatusError{Op: op, Store: s.String(), Key: key, Status: answer.HTTPStatusCode(), RetryAfter: retryAfter(answer.Response.Header)}
		var api smithy.APIError
		if errors.As(err, &api) {
			status.Code, status.Message = api.ErrorCode(), api.ErrorMessage()
		} else {
			status.Message = err.Error()
		}
		if status.Status/100 == 2 {
			// An answer that says yes and then breaks, or a late error of CompleteMultipartUpload, which comes with 200.
			status.Status = http.StatusInternalServerError
		}
		return status
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s of %q in %s: %w", op, key, s, &brokenError{err})
}

// fromETag reads an ETag: a plain one is the MD5 of the content, one with "-" counts parts.
func fromETag(o *Object, etag *string) {
	o.ETag = strings.Trim(aws.ToString(etag), `"`)
	switch {
	case strings.Contains(o.ETag, "-"):
		o.Parts = Multi
	case len(o.ETag) == 32:
		o.MD5 = o.ETag
	}
}
