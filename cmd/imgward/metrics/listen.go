// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// CheckAddress says whether metrics may be served there: on a loopback address only, for they name domains and are
// given to anybody who asks.
func CheckAddress(address string) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("metrics=%s: it is an address and a port, as 127.0.0.1:9750", address)
	}
	if !a.Addr().IsLoopback() {
		return fmt.Errorf("metrics=%s: only loopback addresses are served; put a proxy that asks for credentials before it", address)
	}
	return nil
}

// Serve serves the handler's metrics on a loopback address until the listener fails.
func Serve(address string, h http.Handler) error {
	if err := CheckAddress(address); err != nil {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	return srv.Serve(l)
}
