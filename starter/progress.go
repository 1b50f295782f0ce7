package main

import (
	"fmt"
	"io"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
)

// progressItem is one thing that is going on.
type progressItem struct {
	key  string
	text string
	// state is running, done, warning or waiting.
	state string
	// value is how far it is: resources, or with a total, which is where it ends, seconds.
	value, total int64
}

// progressView shows people how long work goes on: bars on a terminal, otherwise a line for each change.
type progressView interface {
	show(item progressItem)
	// note says something about the whole, until it says something else; "" says nothing.
	note(text string)
	stop()
}

func newProgress(w io.Writer) progressView {
	if terminal(w) {
		return newBars(w)
	}
	return &changes{w: w, last: map[string]string{}}
}

// changes prints a line whenever something is no longer as it was.
type changes struct {
	w    io.Writer
	last map[string]string
}

func (p *changes) show(item progressItem) {
	line := item.key + ": " + item.state
	// With a total the value is time, and that it passes isn't news.
	if item.total == 0 && item.value > 0 {
		line += fmt.Sprintf(", %d resources", item.value)
	}
	if item.text != "" {
		line += ". " + item.text
	}
	p.print(item.key, line)
}

func (p *changes) note(text string) {
	if text != "" {
		p.print("", text)
	}
}

func (p *changes) print(key, line string) {
	if p.last[key] == line {
		return
	}
	p.last[key] = line
	fmt.Fprintln(p.w, line)
}

func (*changes) stop() {}

// bars draws a bar for each thing that is going on.
type bars struct {
	writer   progress.Writer
	trackers map[string]*progress.Tracker
	rendered chan struct{}
}

func newBars(w io.Writer) *bars {
	p := &bars{writer: progress.NewWriter(), trackers: map[string]*progress.Tracker{}, rendered: make(chan struct{})}
	p.writer.SetOutputWriter(w)
	p.writer.SetAutoStop(false)
	p.writer.SetUpdateFrequency(200 * time.Millisecond)
	p.writer.SetTrackerPosition(progress.PositionRight)
	p.writer.SetMessageLength(28)
	p.writer.SetTrackerLength(24)
	p.writer.Style().Visibility.ETA = false
	p.writer.Style().Visibility.Time = false
	p.writer.Style().Visibility.TrackerOverall = false
	go func() {
		p.writer.Render()
		close(p.rendered)
	}()
	return p
}

func (p *bars) show(item progressItem) {
	t, ok := p.trackers[item.key]
	if !ok {
		t = &progress.Tracker{Message: item.key, Total: item.total, AutoStopDisabled: true}
		if item.total > 0 {
			t.Units.Formatter = func(seconds int64) string { return (time.Duration(seconds) * time.Second).String() }
		}
		p.trackers[item.key] = t
		p.writer.AppendTracker(t)
	}
	if item.total != 0 {
		t.UpdateTotal(item.total)
	}
	t.SetValue(item.value)
	switch item.state {
	case "done", "warning":
		if !t.IsDone() {
			t.MarkAsDone()
			if item.text != "" {
				p.writer.Log("%s: %s", item.key, item.text)
			}
		}
	case "waiting":
		t.MarkAsErrored()
	}
}

func (p *bars) note(text string) {
	if text == "" {
		p.writer.SetPinnedMessages()
		return
	}
	p.writer.SetPinnedMessages(text)
}

// stop draws the last state. A Stop that comes before the first drawing is lost, so it's said until it is heard.
func (p *bars) stop() {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		p.writer.Stop()
		select {
		case <-p.rendered:
			return
		case <-ticker.C:
		}
	}
}
