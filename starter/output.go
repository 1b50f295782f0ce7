package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// column is one column of a table: its heading and what a row shows in it.
type column[T any] struct {
	head string
	cell func(T) string
}

// printRows prints rows as a table or, with --output json, as a JSON array of the rows themselves.
func printRows[T any](c *cli.Context, rows []T, empty string, columns ...column[T]) error {
	if asJSON(c) {
		if rows == nil {
			rows = []T{}
		}
		return printJSON(c, rows)
	}
	return printTable(c, rows, empty, columns...)
}

// printTable prints rows as a table, or the text empty where there are none.
func printTable[T any](c *cli.Context, rows []T, empty string, columns ...column[T]) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(c.App.Writer, empty)
		return err
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	heads := make(table.Row, len(columns))
	widths := make([]table.ColumnConfig, len(columns))
	for i, col := range columns {
		heads[i] = strings.ToUpper(col.head)
		widths[i] = table.ColumnConfig{Number: i + 1, WidthMax: 60, WidthMaxEnforcer: text.WrapSoft}
	}
	t.SetColumnConfigs(widths)
	t.AppendHeader(heads)
	for _, row := range rows {
		cells := make(table.Row, len(columns))
		for i, col := range columns {
			cells[i] = col.cell(row)
		}
		t.AppendRow(cells)
	}
	_, err := fmt.Fprintln(c.App.Writer, t.Render())
	return err
}

// printJSON prints v, indented.
func printJSON(c *cli.Context, v any) error {
	enc := json.NewEncoder(c.App.Writer)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printOne prints v as JSON with --output json, and otherwise the lines.
func printOne(c *cli.Context, v any, lines ...string) error {
	if asJSON(c) {
		return printJSON(c, v)
	}
	_, err := fmt.Fprintln(c.App.Writer, strings.Join(lines, "\n"))
	return err
}

// asJSON reports whether the command's result is to be printed as JSON.
func asJSON(c *cli.Context) bool { return c.String("output") == "json" }

// hint tells the person something that isn't part of the result.
func hint(c *cli.Context, format string, args ...any) {
	fmt.Fprintf(c.App.ErrWriter, format+"\n", args...)
}

// when is an instant for a person: UTC, to the second; "-" for none.
func when(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// ago is how long ago an instant was, roughly.
func ago(t time.Time) string {
	d := max(time.Since(t), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// indented puts a margin before each line of a text.
func indented(text string) string {
	return "  " + strings.ReplaceAll(text, "\n", "\n  ")
}

// countColumns are the columns of a table of counts, for rows that hold them.
func countColumns[T any](counts func(T) cura.Counts) []column[T] {
	number := func(get func(cura.Counts) int) func(T) string {
		return func(row T) string { return strconv.Itoa(get(counts(row))) }
	}
	return []column[T]{
		{"served", number(func(c cura.Counts) int { return c.Served })},
		{"landed", number(func(c cura.Counts) int { return c.Landed })},
		{"stored", number(func(c cura.Counts) int { return c.Stored })},
		{"unchanged", number(func(c cura.Counts) int { return c.Unchanged })},
		{"quarantined", number(func(c cura.Counts) int { return c.Quarantined })},
		{"in review", number(func(c cura.Counts) int { return c.InReview })},
		{"withheld", number(func(c cura.Counts) int { return c.Withheld })},
	}
}
