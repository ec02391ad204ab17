"""The look of the report: system fonts, one column, light and dark, readable on a phone."""

STYLE = """
:root { color-scheme: light dark; --ink:#1a1d21; --soft:#5b636d; --line:#d9dee4; --paper:#ffffff; --card:#f6f8fa; --mark:#0072B2; --good:#0b7a52; }
@media (prefers-color-scheme: dark) {
  :root { --ink:#e8eaed; --soft:#a3abb5; --line:#3a4149; --paper:#15181b; --card:#1e2226; --mark:#56B4E9; --good:#4cc38a; }
  .picture img { background:#fff; border-radius:6px; padding:6px; }
}
* { box-sizing: border-box; }
body { margin:0 auto; max-width:60rem; padding:1.5rem 1rem 4rem; background:var(--paper); color:var(--ink);
       font:16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size:1.6rem; line-height:1.25; margin:.2rem 0 .4rem; } h2 { font-size:1.15rem; margin:2.4rem 0 .5rem; }
p, li { max-width:46rem; } .soft { color:var(--soft); font-size:.92rem; }
.verdict { border-left:4px solid var(--mark); background:var(--card); padding:.9rem 1rem; margin:1rem 0; font-size:1.08rem; border-radius:0 6px 6px 0; }
.scroll { overflow-x:auto; } table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; font-size:.95rem; }
caption { text-align:left; color:var(--soft); font-size:.92rem; padding-bottom:.4rem; }
th, td { text-align:left; padding:.4rem .7rem .4rem 0; border-bottom:1px solid var(--line); vertical-align:top; }
th { color:var(--soft); font-weight:600; vertical-align:bottom; } td.number { white-space:nowrap; }
tr.winner td, tr.candidate td { font-weight:650; } tr.winner td:first-child::after { content:" \\2713"; color:var(--good); }
tr.candidate td:first-child::after { content:" (candidate)"; font-weight:400; } td:first-child { min-width:8.5rem; }
tr.noted td { border-bottom:0; padding-bottom:.1rem; } tr.note td { color:var(--soft); font-size:.92rem; padding-top:0; }
table.facts td:first-child { white-space:nowrap; width:1%; padding-right:1.5rem; } pre.wrap { white-space:pre-wrap; overflow-wrap:anywhere; }
pre { background:var(--card); border:1px solid var(--line); border-radius:6px; padding:.8rem; overflow-x:auto; font-size:.86rem; line-height:1.45; }
img { max-width:100%; height:auto; display:block; } figure { margin:1rem 0; } figcaption { color:var(--soft); font-size:.92rem; margin-top:.3rem; }
svg.bar { display:block; width:8rem; height:1.1rem; } svg.bar line { stroke:var(--mark); stroke-width:2; } svg.bar circle { fill:var(--mark); }
svg.bar .zero { stroke:var(--line); stroke-width:1; } @media (max-width: 640px) {
  thead { position:absolute; left:-9999px; } tr { display:block; padding:.6rem 0; border-bottom:1px solid var(--line); }
  td { display:flex; justify-content:space-between; gap:1rem; border:0; padding:.12rem 0; text-align:right; }
  td:first-child { font-weight:650; text-align:left; justify-content:flex-start; gap:.3rem; } td[data-label]::before { content:attr(data-label); color:var(--soft); font-weight:400; text-align:left; }
  tr.noted { border-bottom:0; padding-bottom:0; } tr.note { padding-top:0; } tr.note td { font-weight:400; }
  table.facts td:first-child { width:auto; white-space:normal; } table.facts td { text-align:left; justify-content:flex-start; }
  td:first-child::before, td.reason::before { content:none !important; } td.reason { text-align:left; } td:empty { display:none; }
}
dt { font-weight:600; margin-top:.5rem; } dd { margin:0 0 0 1rem; }
"""
