package stack

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

const loopback = "127.0.0.1"

// FreePort returns the wanted TCP port when nobody listens on it at the loopback address, and another free one
// otherwise, or when wanted is 0. Somebody else may take the port before the caller does: be ready to ask again.
func FreePort(wanted int) (int, error) {
	port, err := tryPort(wanted)
	if wanted != 0 && (errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES)) {
		port, err = tryPort(0)
	}
	if err != nil {
		return 0, fmt.Errorf("finding a free port: %w", err)
	}
	return port, nil
}

func tryPort(port int) (int, error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return 0, err
	}
	addr, ok := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil {
		return 0, err
	}
	if !ok {
		return 0, errors.New("the listener has no TCP address")
	}
	return addr.Port, nil
}

func hostPort(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }
