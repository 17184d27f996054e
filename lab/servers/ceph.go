package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"
)

// Ceph is a running Ceph with an S3 gateway: one monitor, one manager, one OSD, one gateway.
type Ceph struct {
	Endpoint  string `json:"endpoint"`
	Region    string `json:"region"`
	AccessKey string `json:"access_key"`
	SecretKey string `json:"secret_key"`
	// Dir takes configuration, data and logs.
	Dir string `json:"dir"`

	// The processes are nil when another process runs this Ceph.
	Mon, Mgr, OSD, Gateway *Process `json:"-"`
	Group                  `json:"-"`
}

// StartCeph brings up a Ceph below dir, with an S3 user.
func StartCeph(ctx context.Context, dir string) (*Ceph, error) {
	if err := present(map[string]string{
		"ceph-mon": "ceph-mon", "ceph-mgr": "ceph-mgr", "ceph-osd": "ceph-osd", "radosgw": "radosgw", "radosgw-admin": "radosgw",
		"ceph": "ceph-common", "monmaptool": "ceph-common",
	}); err != nil {
		return nil, err
	}
	c := &Ceph{Region: "us-east-1", AccessKey: "registry", SecretKey: "registrysecret", Dir: dir}
	if err := c.start(ctx); err != nil {
		c.Stop()
		return nil, fmt.Errorf("start Ceph: %w", err)
	}
	return c, nil
}

func (c *Ceph) start(ctx context.Context) error {
	addresses, err := FreePorts(3)
	if err != nil {
		return err
	}
	id := uuid.NewString()
	if err := c.configure(id, addresses); err != nil {
		return err
	}
	if err := command(ctx, nil, "monmaptool", "--create", "--clobber", "--addv", "a", fmt.Sprintf("[v2:%s,v1:%s]", addresses[0], addresses[1]), "--fsid", id, c.path("monmap")); err != nil {
		return err
	}
	if err := command(ctx, nil, "ceph-mon", "--mkfs", "-i", "a", "--monmap", c.path("monmap"), "--keyring", c.path("keyring"), "-c", c.path("etc/ceph.conf")); err != nil {
		return err
	}
	c.Endpoint = "http://" + addresses[2]
	c.Mon = c.process("mon.a", Answers(addresses[0]), "ceph-mon", "-f", "-i", "a")
	c.Mgr = c.process("mgr.x", nil, "ceph-mgr", "-f", "-i", "x")
	c.OSD = c.process("osd.0", c.serves, "ceph-osd", "-f", "-i", "0")
	c.Gateway = c.process("client.rgw.a", AnswersHTTP(c.Endpoint), "radosgw", "-f", "-n", "client.rgw.a")
	osd := uuid.NewString()
	formatted := make(chan error, 1)
	go func() {
		formatted <- command(ctx, nil, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd, "-c", c.path("etc/ceph.conf"))
	}()
	err = c.Group.Start(ctx, c.Mon)
	if err == nil {
		err = c.ceph(ctx, "osd", "new", osd, "0")
	}
	if err := errors.Join(err, <-formatted); err != nil {
		return err
	}
	if err := c.Group.Start(ctx, c.OSD, c.Mgr); err != nil {
		return err
	}
	if err := c.createUser(ctx); err != nil {
		return err
	}
	return c.Group.Start(ctx, c.Gateway)
}

func (c *Ceph) path(name string) string { return filepath.Join(c.Dir, name) }

func (c *Ceph) process(name string, ready func(context.Context) error, args ...string) *Process {
	return &Process{
		Name: "ceph-" + name, Args: append(args, "-c", c.path("etc/ceph.conf")), Log: c.path("log/ceph-" + name + ".log"), Ready: ready,
		Env: []string{"PYTHONDONTWRITEBYTECODE=1"}, // the manager's modules lie outside our folder
	}
}

// serves waits until the OSD is part of the cluster, which it says in its log long before any command would be done asking.
func (c *Ceph) serves(context.Context) error {
	raw, err := os.ReadFile(c.OSD.Log)
	if err != nil {
		return err
	}
	begin := bytes.LastIndex(raw, fmt.Appendf(nil, " process ceph-osd, pid %d", c.OSD.cmd.Process.Pid)) // the log is older than this start
	if begin < 0 || !bytes.Contains(raw[begin:], []byte("state: booting -> active")) {
		return errors.New("it has not joined the cluster")
	}
	return nil
}

// ceph runs an administrator's command.
func (c *Ceph) ceph(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return command(ctx, nil, append([]string{"ceph", "-c", c.path("etc/ceph.conf")}, args...)...)
}

// createUser makes the S3 user. It also makes the gateway's first pools, for which it waits until the OSD serves.
func (c *Ceph) createUser(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err := command(ctx, nil, "radosgw-admin", "-c", c.path("etc/ceph.conf"), "-n", "client.rgw.a", "user", "create", "--uid=registry",
		"--display-name=registry", "--access-key="+c.AccessKey, "--secret-key="+c.SecretKey, "--max-buckets=0")
	if err != nil {
		return fmt.Errorf("%w; the log of the OSD ends with: %s", err, Tail(c.OSD.Log))
	}
	return nil
}

// CreateBucket makes a bucket.
func (c *Ceph) CreateBucket(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(c.Endpoint), Region: c.Region, UsePathStyle: true, HTTPClient: &http.Client{},
		Credentials: credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, ""),
	})
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(name)}); err != nil {
		return fmt.Errorf("create bucket %s: %w", name, err)
	}
	return nil
}

// EnableMetrics lets the manager serve metrics for Prometheus, and returns where.
func (c *Ceph) EnableMetrics(ctx context.Context) (address string, err error) {
	free, err := FreePorts(1)
	if err != nil {
		return "", err
	}
	for _, args := range [][]string{ // by force, because the manager may not have told the monitor yet which modules it has
		{"config", "set", "mgr", "mgr/prometheus/server_addr", "127.0.0.1", "--force"},
		{"config", "set", "mgr", "mgr/prometheus/server_port", port(free[0]), "--force"},
		{"mgr", "module", "enable", "prometheus", "--force"},
	} {
		if err := c.ceph(ctx, args...); err != nil {
			return "", fmt.Errorf("metrics of Ceph: %w", err)
		}
	}
	return free[0], nil
}
