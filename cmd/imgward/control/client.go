// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"
)

// Client asks a view's daemon.
type Client struct {
	mountpoint string
	http       http.Client
}

// Dial makes a Client for a view. It connects at the first question.
func Dial(mountpoint string) *Client {
	c := &Client{mountpoint: mountpoint}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", Socket(mountpoint))
	}}
	return c
}

// Get asks, and calls each with every line of the answer, until it ends. The error of each ends it. If the worker dies
// before it has said anything, its successor is asked.
func (c *Client) Get(ctx context.Context, endpoint string, query url.Values, each func(line []byte) error) error {
	answered := false
	ask := func() error {
		return c.do(ctx, http.MethodGet, endpoint, query, nil, func(line []byte) error {
			answered = true
			return each(line)
		})
	}
	err := ask()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if answered || err == nil || !Lost(err) || ctx.Err() != nil {
			break
		}
		pause(ctx)
		err = ask()
	}
	return err
}

// A worker that dies is followed by another after some milliseconds, or a second or two on an overloaded machine. For how
// long to ask the next one, and how often.
const (
	patience   = 10 * time.Second
	retryPause = 50 * time.Millisecond
)

func pause(ctx context.Context) {
	select {
	case <-time.After(retryPause):
	case <-ctx.Done():
	}
}

// Lost says whether an answer ended because the worker did.
func Lost(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Post has something changed; body is sent as JSON. Otherwise it is as Get.
func (c *Client) Post(ctx context.Context, endpoint string, body any, each func(line []byte) error) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, endpoint, nil, bytes.NewReader(text), each)
}

// Delete has something ended.
func (c *Client) Delete(ctx context.Context, endpoint string) error {
	return c.do(ctx, http.MethodDelete, endpoint, nil, nil, func([]byte) error { return nil })
}

// Metrics asks for the daemon's metrics, in Prometheus' text format.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://imgward/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon of %s: %w", c.mountpoint, unwrapURL(err))
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the daemon of %s has no metrics (%s)", c.mountpoint, res.Status)
	}
	return io.ReadAll(res.Body)
}

func (c *Client) do(ctx context.Context, method, endpoint string, query url.Values, body io.Reader, each func([]byte) error) error {
	u := url.URL{Scheme: "http", Host: "imgward", Path: "/v1/" + endpoint, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask the daemon of %s: %w", c.mountpoint, unwrapURL(err))
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return answerError(res.Body)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if err := each(lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// Dead says whether a question failed because no daemon serves the view, and none will: while a successor is being
// started the keeper holds the socket, and questions wait.
func Dead(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)
}

func answerError(body io.Reader) error {
	var e Error
	if err := json.NewDecoder(body).Decode(&e); err != nil || e.Message == "" {
		return errors.New("the daemon gave an answer that is not understood; is it another version?")
	}
	return errors.New(e.Message)
}

func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
