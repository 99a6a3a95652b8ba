// A curve that grows: Gradio would make the chart anew for each point, and lose where somebody zoomed or points at.
const draw = () => {
  const chart = document.querySelector("#train-loss .js-plotly-plot");
  const text = props.value;
  if (!text || !chart || !window.Plotly || chart.drawn === text) return;
  const figure = JSON.parse(text);
  if (chart.layout?.meta !== figure.layout.meta) return; // of another run, or drawn in another way
  chart.drawn = text;
  window.Plotly.react(chart, figure.data, figure.layout, { responsive: true });
};

watch("value", draw);
// the chart may not be there yet, or be made anew from its first points when its tab is opened again
const again = setInterval(() => (element.isConnected ? draw() : clearInterval(again)), 500);
